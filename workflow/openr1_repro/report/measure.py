"""A run's scores as estimates, the choice of its checkpoint, and comparisons: `evaluate.statistics`, applied."""

import math
from itertools import combinations
from typing import Any

import polars as pl

from openr1_repro import stage
from openr1_repro.evaluate import statistics
from openr1_repro.evaluate.settings import VALIDATION, WARM_START
from openr1_repro.report.read import Run


def measure(run: Run, headline: str | None) -> dict[str, Any]:
    """All scores of one variant; nothing in them depends on the time or the machine.

    Args:
        run: the variant.
        headline: benchmark of the headline; None, or one that the variant has not run: its first.

    Returns:
        ``checkpoint`` (chosen on the validation prompts), ``why``, ``headline`` (``benchmark, base, trained,
        difference``, and ``from_warm_start``: what GRPO added to a supervised start, None where there was none) and
        ``benchmarks``: by name ``problems, samples, models``, and by model `statistics.summarise`'s row with
        ``difference``, `statistics.compare`'s from the base model, Holm-corrected over the benchmarks. Scores are
        fractions.

    Raises:
        UserError: if a model lacks problems or samples that another has.
    """
    order = [*run.files.config["evaluate"]["benchmarks"], VALIDATION]
    names = [name for name in order if name in run.scores["benchmark"]]
    reported = [name for name in names if name != VALIDATION]
    if not reported:
        raise stage.UserError(
            f"{run.files.scores}: no scores on any benchmark of the variant; rerun the evaluate stage"
        )
    benchmarks = {name: _benchmark(run, name) for name in names}
    trained = [model for model in run.steps if model != "base"]
    for model in trained:
        corrected = statistics.correct({name: benchmarks[name]["models"][model]["difference"] for name in reported})
        for name, difference in corrected.items():
            benchmarks[name]["models"][model]["difference"] = difference
    rows = list(benchmarks.get(VALIDATION, {"models": {}})["models"].values())
    pick = statistics.pick_checkpoint(rows, [model for model in trained if model != WARM_START], VALIDATION)
    shown = headline if headline and headline in reported else reported[0]
    models = benchmarks[shown]["models"]
    chosen = _samples(run, shown, pick["model"])
    return {
        "checkpoint": pick["model"],
        "why": pick["reason"],
        "headline": {
            "benchmark": shown,
            "base": models["base"]["avg"],
            "trained": models[pick["model"]]["avg"],
            "difference": models[pick["model"]]["difference"],
            "from_warm_start": _finite(statistics.compare(_samples(run, shown, WARM_START), chosen))
            if WARM_START in models
            else None,
        },
        "benchmarks": benchmarks,
    }


def side_by_side(runs: list[Run], results: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pair of variants on every benchmark whose problems both answered, by the checkpoints of their headlines."""
    found = []
    for first, second in combinations(runs, 2):
        chosen = [(run, results[run.name]["checkpoint"]) for run in (first, second)]
        differences = {}
        for name in results[first.name]["benchmarks"]:
            a, b = (_samples(run, name, model) for run, model in chosen)
            if name != VALIDATION and a["item"].unique().sort().equals(b["item"].unique().sort()):
                differences[name] = statistics.compare(a, b)
        for name, difference in statistics.correct(differences).items():
            values = [results[run.name]["benchmarks"][name]["models"][model]["avg"] for run, model in chosen]
            pair = {"first": first.name, "second": second.name, "benchmark": name}
            found.append({**pair, "first_avg": values[0], "second_avg": values[1], "difference": _finite(difference)})
    return found


def headline_line(name: str, result: dict[str, Any]) -> str:
    """The result of one variant as one plain line."""
    h = result["headline"]
    d, b = h["difference"], result["benchmarks"][h["benchmark"]]
    line = (
        f"{name}, {h['benchmark']}: {100 * h['base']:.1f} % → {100 * h['trained']:.1f} %, "
        f"{100 * d['difference']:+.1f} points (95 % interval {100 * d['low']:+.1f} to {100 * d['high']:+.1f}; "
        f"avg@{b['samples']}, {b['problems']:,} problems; base → {result['checkpoint']})"
    )
    line = line if d["different"] else f"{line}: {statistics.NO_DIFFERENCE}"
    if g := h["from_warm_start"]:
        line += f"; of these by GRPO {100 * g['difference']:+.1f} ({100 * g['low']:+.1f} to {100 * g['high']:+.1f})"
        line += "" if g["different"] else f": {statistics.NO_DIFFERENCE}"
    return line


def _samples(run: Run, benchmark: str, model: str) -> pl.DataFrame:
    return run.scores.filter(pl.col("benchmark") == benchmark, pl.col("model") == model)


def _benchmark(run: Run, name: str) -> dict[str, Any]:
    models: dict[str, Any] = {}
    base = _samples(run, name, "base")
    for model in run.steps:
        own = _samples(run, name, model)
        path = run.files.base_scores if model == "base" else run.files.scores
        if own.is_empty():
            raise stage.UserError(f"{path}: no scores of {model} on {name}; rerun the evaluate stage")
        try:
            row = statistics.summarise(own)[0]
            row["difference"] = None if model == "base" else _finite(statistics.compare(base, own))
        except ValueError as error:
            raise stage.UserError(f"{path}: {model} on {name}: {error}; rerun the evaluate stage") from None
        models[model] = _finite(row)
    return {"problems": models["base"]["num_problems"], "samples": models["base"]["num_samples"], "models": models}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an unknown number is null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
