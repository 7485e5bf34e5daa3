"""From measured numbers to the words, tables and plots of the page."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup
from ruamel.yaml import YAML

from openr1_repro import stage
from openr1_repro.evaluate.settings import VALIDATION
from openr1_repro.report import plots
from openr1_repro.report.read import Run, read_completions, read_texts
from openr1_repro.report.settings import Inputs
from openr1_repro.report.words import (
    NARROW,
    averaged,
    clipped,
    count,
    duration,
    number,
    percent,
    points,
    pvalue,
    shown,
    size,
)

# Measures of the log worth a plot: key, title, note, whether it is a share. Rewards by function follow the first.
MEASURES = [
    ("reward", "Reward", "weighted sum of all rewards, mean over the step's completions", False),
    ("completions/mean_length", "Length", "tokens a completion", False),
    ("completions/clipped_ratio", "Cut off", "completions that reached the token limit", True),
    ("entropy", "Entropy", "of the policy, nats a token", False),
    ("frac_reward_zero_std", "Groups without spread", "all rewards equal: nothing to learn from", True),
    ("reward_std", "Spread", "standard deviation of the reward", False),
    ("kl", "KL", "divergence from the reference model", False),
    ("clip_ratio/region_mean", "Clipped", "tokens whose update was clipped", True),
    (
        "sampling/importance_sampling_ratio/mean",
        "Importance ratio",
        "trainer's against generator's probabilities",
        False,
    ),
    ("loss", "Loss", "", False),
    ("grad_norm", "Gradient norm", "", False),
    ("learning_rate", "Learning rate", "", False),
    ("tokens_per_second", "Throughput", "completion tokens a second", False),
    ("time/step", "Time", "seconds a step", False),
    ("memory/peak_gib", "Memory", "peak so far, GiB", False),
    ("gpu_utilisation", "GPU", "per cent busy", False),
]
METHOD = [
    "avg@k is the share of right samples, a mean over problems. pass@k is the unbiased estimate that at least one of k "
    "samples is right, maj@k the share of problems whose most frequent answer is right.",
    "Intervals are at 95 %, by bootstrap over problems: other problems of this kind would move a score so much. "
    "Differences are paired: the same problems, answered by both models.",
    "Two models are called different only where the interval leaves out 0 and a permutation test on the same pairs "
    "agrees (p at most 0.05, by Holm's method over the benchmarks). Everything else is “no difference shown”.",
    "The checkpoint of the headline is chosen on held-out training problems, never on a benchmark; the scores of the "
    "other checkpoints are shown so that the choice can be judged.",
    "Base model and checkpoints were prompted, sampled and scored the same way, by lighteval's metrics.",
]


def flatten(value: Any, prefix: str = "", separator: str = ".") -> dict[str, Any]:
    """A nested mapping with dotted keys: ``{"a": {"b": 1}}`` → ``{"a.b": 1}``; lists stay whole."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    below = [
        flatten(child, f"{prefix}{separator}{key}" if prefix else str(key), separator) for key, child in value.items()
    ]
    return {key: child for one in below for key, child in one.items()}


def differing(configs: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Dotted keys that the configs do not all set alike, with each config's value."""
    flat = [flatten(config) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def render(
    settings: Inputs,
    runs: list[Run],
    scores: dict[str, Any],
    comparisons: list[dict[str, Any]],
    provenance: dict[str, Any],
) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "points": points, "pvalue": pvalue, "count": count, "bytes": size,
        "averaged": averaged, "shown": shown, "clipped": clipped,
    }  # fmt: skip
    return environment.get_template("page.html").render(
        css=Markup(Path(__file__).with_name("page.css").read_text()),
        settings=settings,
        runs=runs,
        scores=scores,
        comparisons=comparisons,
        differing=differing([run.files.config for run in runs]),
        plots={"differences": _differences(runs, scores)},
        benchmarks=_benchmarks(settings, runs, scores),
        published=_published(settings, scores),
        training=_training(runs),
        rewards=_rewards(runs),
        machine_rows=_machine(runs),
        datasets=_datasets(settings, runs),
        texts=[_texts(settings, run, scores[run.name]) for run in runs],
        protocols=[{"name": run.name, "text": _yaml(run.scoring["protocol"])} for run in runs],
        definitions=_yaml(settings.benchmarks),
        provenance={**provenance, "configs": [{"name": run.name, "text": _yaml(run.files.config)} for run in runs]},
        method=METHOD,
    )


def _differences(runs: list[Run], scores: dict[str, Any]) -> str:
    rows = []
    for series, run in enumerate(runs):
        result = scores[run.name]
        for name, benchmark in result["benchmarks"].items():
            if name != VALIDATION:
                label = f"{name} · {run.name}" if len(runs) > 1 else name
                rows.append(
                    {"name": label, "series": series, **benchmark["models"][result["checkpoint"]]["difference"]}
                )
    said = "; ".join(
        f"{row['name']} {points(row['difference'])} ({points(row['low'])} to {points(row['high'])})" for row in rows
    )
    return plots.differences(rows, f"Trained minus base in points with 95 % intervals: {said}")


def _benchmarks(settings: Inputs, runs: list[Run], scores: dict[str, Any]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for run in runs for name in scores[run.name]["benchmarks"] if name != VALIDATION)
    if any(VALIDATION in scores[run.name]["benchmarks"] for run in runs):
        names[VALIDATION] = None
    found = []
    for name in names:
        having = [(i, run) for i, run in enumerate(runs) if name in scores[run.name]["benchmarks"]]
        curves, chosen = [], []
        for _, run in having:
            models = scores[run.name]["benchmarks"][name]["models"]
            curves.append([{"step": run.steps[model], **value} for model, value in models.items()])
            chosen.append(run.steps[scores[run.name]["checkpoint"]])
        first = scores[having[0][1].name]["benchmarks"][name]
        definition = settings.benchmarks.get(name, {})
        parts = [definition["description"].rstrip(".") + "."] if definition.get("description") else []
        parts.append(f"{count(first['problems'])} problems × {first['samples']} samples.")
        if "version" in definition:
            parts.append(f"Definition version {definition['version']}, metric {definition.get('metric', '')}.")
        detectable = first["models"]["base"]["detectable"]
        if name != VALIDATION and detectable is not None:
            parts.append(f"The smallest difference that this could show: about {100 * detectable:.1f} points.")
        parts += [f"{deviation.rstrip('.')}." for deviation in definition.get("deviations", [])]
        ends = "; ".join(
            f"{run.name} {percent(c[0]['avg'])} to {percent(c[-1]['avg'])}"
            for (_, run), c in zip(having, curves, strict=True)
        )
        found.append({
            "name": name,
            "summary": " ".join(parts),
            "contamination": _contamination([run for _, run in having], name) if name != VALIDATION else "",
            "plot": plots.score_by_step(
                curves,
                chosen,
                [i for i, _ in having],
                f"Share of right samples on {name} from the base model to the last checkpoint: {ends}",
            ),
            "runs": [(run.name, i, scores[run.name], scores[run.name]["benchmarks"][name]) for i, run in having],
        })  # fmt: skip
    return found


def _contamination(runs: list[Run], benchmark: str) -> str:
    """What the prepare stage found of a benchmark among the training problems, as sentences."""
    said: dict[str, list[str]] = {}
    for run in runs:
        step = next((step for step in run.funnel["steps"] if step["setting"] == "contamination"), None)
        against = ((run.funnel["settings"] or {}).get("contamination") or {}).get("benchmarks")
        if step is None or (against is not None and benchmark not in against):
            sentence = "the training problems were not compared with it."
        elif found := step["reasons"].get(benchmark, 0):
            sentence = f"dropped from the training problems for overlapping with it: {count(found)}."
        else:
            sentence = "no training problem overlapped with it."
        said.setdefault(sentence, []).append(run.name)
    return " ".join(
        f"Contamination{' of ' + ', '.join(names) if len(said) > 1 else ''}: {sentence}"
        for sentence, names in said.items()
    )


def _published(settings: Inputs, scores: dict[str, Any]) -> dict[str, Any]:
    """Rows of the file of published results that have a number for a benchmark of this report."""
    if settings.published is None:
        return {"rows": [], "benchmarks": []}
    try:
        rows = YAML(typ="safe").load(settings.published.read_text(encoding="utf-8"))
    except OSError as error:
        raise stage.UserError(f"{settings.published}: cannot be read ({error.strerror})") from None
    here = dict.fromkeys(name for result in scores.values() for name in result["benchmarks"])
    names = [name for name in here if any(name in row["scores"] for row in rows)]
    return {"rows": [row for row in rows if set(row["scores"]) & set(names)], "benchmarks": names}


def _training(runs: list[Run]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for run in runs for row in run.log for key in row))
    functions = [
        (key, f"Reward {name}", "mean over completions", False)
        for key in keys
        if (match := re.fullmatch(r"rewards/(.+)/mean", key)) and (name := match[1])
    ]
    figures = []
    for key, title, note, share in [MEASURES[0], *functions, *MEASURES[1:]]:
        steps = [[row["step"] for row in run.log if key in row] for run in runs]
        values = [[row[key] for row in run.log if key in row] for run in runs]
        known = [[v for v in one if v is not None and math.isfinite(v)] for one in values]
        if not any(known) or (key in ("kl", "clip_ratio/region_mean") and not any(v for one in known for v in one)):
            continue
        ends = [_ends(one, share) for one in known if one]
        said = "; ".join(
            f"{run.name} {end}"
            for run, end in zip((r for r, one in zip(runs, known, strict=True) if one), ends, strict=True)
        )
        svg = plots.curve(steps, values, share, f"{title} by step, {note}: {said}")
        figures.append({"title": title, "note": note, "ends": ends[0] if len(runs) == 1 else "", "svg": svg})
    return figures


def _ends(values: Sequence[float], share: bool) -> str:
    """Means of the first and the last tenth, as words."""
    tenth = max(1, len(values) // 10)
    first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
    return f"{percent(first)} → {percent(last)}" if share else f"{number(first)} → {number(last)}"


def _rewards(runs: list[Run]) -> dict[str, Any]:
    """A row a reward function: its mean in the run's first and last tenth, then what else was logged of it."""
    logged = [
        [
            {
                "/".join(k.split("/")[1:]): v
                for k, v in flatten(row, separator="/").items()
                if re.match("rewards/|reward_engine/.*/(?!mean$|std$)", k)
            }
            for row in run.log
        ]
        for run in runs
    ]
    rows: list[dict[str, Any]] = []
    extras = dict.fromkeys(key.split("/")[-1] for log in logged for row in log for key in row)
    extras.pop("mean", None)
    for index, (run, log) in enumerate(zip(runs, logged, strict=True)):
        if len(runs) > 1:
            rows.append({"run": run.name, "index": index})
        for name in dict.fromkeys(key.rsplit("/", 1)[0] for row in log for key in row if key.endswith("/mean")):
            cells = []
            for part in ("mean", *extras):
                values = [v for row in log if (v := row.get(f"{name}/{part}")) is not None and math.isfinite(v)]
                tenth = max(1, len(values) // 10)
                if part == "timeouts":  # rare and each worth knowing: all of the run
                    cells.append(count(int(sum(values))))
                    continue
                if part == "mean":
                    cells.append(number(sum(values[:tenth]) / tenth) if values else "–")
                cells.append(number(sum(values[-tenth:]) / tenth) if values else "–")
            rows.append({"run": None, "name": name, "cells": cells})
    return {
        "columns": ["Function", "mean, first tenth", "mean, last tenth", *(e.replace("_", " ") for e in extras)],
        "rows": rows,
    }


def _machine(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """The train stage's summary as rows, its keys in its words, then where the time of a step goes."""
    flat = []
    for run in runs:
        one = flatten({key: value for key, value in run.train.items() if key not in ("fingerprint", "checkpoints")})
        steps = [row["time/step"] for row in run.log if row.get("time/step")]
        for phase in dict.fromkeys(
            key for row in run.log for key in row if key.startswith("time/") and key != "time/step"
        ):
            share = sum(row.get(phase) or 0 for row in run.log) / sum(steps)
            one[f"time in {phase.removeprefix('time/')}"] = (
                f"{number(share * sum(steps) / len(steps))} s a step, {100 * share:.0f}{NARROW}%"
            )
        flat.append(one)
    rows = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [one.get(key) for one in flat]
        said = [
            "–"
            if v is None or v == []
            else duration(v)
            if key.endswith("seconds")
            else number(v, 6)
            if isinstance(v, float)
            else count(v)
            if type(v) is int
            else shown(v)
            for v in values
        ]
        rows.append(
            (key.removeprefix("versions.").replace("seconds", "time").replace("_", " ").replace(".", " "), said)
        )
    return rows


def _datasets(settings: Inputs, runs: list[Run]) -> list[dict[str, Any]]:
    """The funnel of every distinct set of prompts."""
    shared: dict[Path, list[Run]] = {}
    for run in runs:
        shared.setdefault(run.files.funnel, []).append(run)
    found = []
    for users in shared.values():
        funnel = users[0].funnel
        steps = funnel["steps"]
        start = steps[0]["rows_in"] if steps else 0
        left = steps[-1]["rows_out"] if steps else 0
        rows = [{"name": "rows read", "dropped": None, "left": start, "share": 1.0}]
        rows += [
            {"name": s["name"], "dropped": s["dropped"], "left": s["rows_out"], "share": s["rows_out"] / max(start, 1)}
            for s in steps
        ]
        limit = settings.report.num_examples
        names = ", ".join(run.name for run in users)
        histograms = [
            {
                "title": title,
                "note": f"median {count(h['median'])}, longest {count(h['max'])}",
                "svg": plots.histogram(h["counts"], h["bin"], f"{title}, for {names}"),
            }
            for key, title in (
                ("prompt_tokens", "Prompts in tokens"),
                ("problem_chars", "Problems in characters"),
                ("solution_chars", "Solutions in characters"),
            )
            if (h := funnel.get(key))
        ]
        output = funnel["output"]
        found.append({
            "runs": names,
            "sentence": f"Of {count(start)} rows {count(left)} are left: {count(output['train'])} to train on, "
            f"{count(output['validation'])} held out to choose a checkpoint by. The filters, in their order:",
            "steps": rows,
            "examples": [
                {**s, "reasons": list(s["reasons"].items())[:12], "examples": s["examples"][:limit]}
                for s in steps
                if s["dropped"]
            ],
            "kept": funnel["kept"][: 2 * limit],
            "histograms": histograms,
            "sources": list(funnel["sources"].items())[:12],
        })  # fmt: skip
    return found


def _texts(settings: Inputs, run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """Answers of base and trained model where the verdict changed most, and training completions by reward."""
    benchmark, checkpoint, limit = result["headline"]["benchmark"], result["checkpoint"], settings.report.num_answers
    right = (
        run.scores.filter(pl.col("benchmark") == benchmark, pl.col("model").is_in(["base", checkpoint]))
        .group_by("item")
        .agg(
            base=pl.col("score").filter(pl.col("model") == "base").sum(),
            trained=pl.col("score").filter(pl.col("model") == checkpoint).sum(),
            samples=(pl.col("model") == "base").sum(),
        )
        .with_columns(change=pl.col("trained") - pl.col("base"))
    )
    verdict_of = {
        (row["model"], row["item"], row["sample"]): row["score"] == 1
        for row in run.scores.filter(pl.col("benchmark") == benchmark).iter_rows(named=True)
    }
    groups = []
    for title, before_right, after_right, rows in (
        (
            "Gained most",
            False,
            True,
            right.filter(pl.col("change") > 0).sort("change", "item", descending=[True, False]),
        ),
        ("Lost most", True, False, right.filter(pl.col("change") < 0).sort("change", "item")),
        (
            "Never right, before or after",
            False,
            False,
            right.filter(pl.col("base") + pl.col("trained") == 0).sort("item"),
        ),
    ):
        chosen = rows.head(limit)
        items = chosen["item"].to_list()
        sides = [
            (model, right_one, read_texts(path, model, benchmark, items))
            for model, right_one, path in (
                ("base", before_right, run.files.base_responses),
                (checkpoint, after_right, run.files.responses),
            )
        ]
        if not all(texts for _, _, texts in sides):
            continue
        problems = []
        for row in chosen.to_dicts():
            shown_texts = []
            for model, right_one, texts in sides:
                # the first sample with the verdict that the group is about
                own = [text for text in texts if text["item"] == row["item"]]
                text = next(t for t in own if verdict_of[model, t["item"], t["sample"]] == right_one)
                shown_texts.append({**text, "name": model, "right": right_one})
            problems.append({
                "item": row["item"], "samples": row["samples"],
                "base_right": int(row["base"]), "trained_right": int(row["trained"]),
                "problem": shown_texts[0]["problem"], "gold": shown_texts[0]["gold"], "sides": shown_texts,
            })  # fmt: skip
        groups.append({"title": title, "problems": problems})
    return {
        "name": run.name,
        "benchmark": benchmark,
        "checkpoint": checkpoint,
        "answers": groups,
        "completions": _completions(settings, run),
    }


def _completions(settings: Inputs, run: Run) -> list[dict[str, Any]]:
    """The completions with the highest and the lowest reward, at the first and at the last step that kept any."""
    weights = run.files.config.get("train", {}).get("rewards", {})
    weight_of = dict(zip(weights.get("reward_funcs") or [], weights.get("reward_weights") or [], strict=False))
    groups = []
    for which in ("first", "last"):
        frame, functions = read_completions(run.files.training, which)
        if frame.is_empty() or not settings.report.num_completions:
            continue
        total = pl.sum_horizontal(
            pl.col(name).fill_null(0).fill_nan(0) * weight_of.get(name, 1.0) for name in functions
        )
        ranked = frame.with_columns(total.alias("_total")).sort("_total", descending=True, maintain_order=True)
        limit = min(settings.report.num_completions, ranked.height // 2)
        for title, rows in (("highest", ranked.head(limit)), ("lowest", ranked.tail(limit).reverse())):
            groups.append({
                "title": f"Step {frame['step'][0]}: the {limit} of {frame.height} completions with the {title} reward",
                "rows": [
                    {
                        "prompt": _last_message(row["prompt"]),
                        "text": _last_message(row["completion"]),
                        "rewards": [("sum", number(row["_total"])), *((name, number(row[name])) for name in functions)],
                    }
                    for row in rows.to_dicts()
                ],
            })  # fmt: skip
    return groups


def _last_message(value: Any) -> str:
    """The text of TRL's prompt or completion: a plain string, or the last message of a conversation."""
    return value if isinstance(value, str) else value[-1]["content"]


def _yaml(value: Any) -> str:
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.dump(value, text)
    return text.getvalue()
