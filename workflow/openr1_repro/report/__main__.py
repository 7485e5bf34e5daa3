"""The report of one or several variants: one page that opens offline, and its numbers for programs.

    python -m openr1_repro.report --settings @report.json --output results/report

Reads what the other stages left, lets `evaluate.statistics` turn scores into estimates, and writes ``index.html``,
``summary.json`` (its ``scores`` are the same in every run on the same input), ``metrics.csv`` and ``REPORT.md``. Prints
each variant's headline; ``--show results/report`` prints it again.
"""

import argparse
import csv
import hashlib
import importlib.metadata
import io
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openr1_repro import stage
from openr1_repro.report import page, words
from openr1_repro.report.measure import headline_line, measure, side_by_side
from openr1_repro.report.read import Run, read_run
from openr1_repro.report.settings import Inputs


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description="Write the report of one or several variants.")
    parser.add_argument("--settings", help="what the report is about (Inputs in report/settings.py): JSON, or @file")
    parser.add_argument("--output", type=Path, help="folder to write")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="write nothing, say what the report in FOLDER says")
    arguments = parser.parse_args()
    if arguments.show:
        show(arguments.show)
        return
    if not arguments.settings or not arguments.output:
        parser.error("--settings and --output are needed to write a report")
    settings = stage.parse_settings(arguments.settings, Inputs)

    runs = [read_run(name, files) for name, files in settings.variants.items()]
    scores = {run.name: measure(run, settings.report.headline) for run in runs}
    comparisons = side_by_side(runs, scores)
    provenance = describe(settings, runs)
    headlines = [headline_line(name, result) for name, result in scores.items()]
    summary = {
        "headlines": headlines,
        "scores": {"variants": scores, "comparisons": comparisons},
        "training": {run.name: run.train for run in runs},
        "provenance": provenance,
    }
    with stage.replacing(arguments.output) as draft:
        draft.mkdir()
        html = page.render(settings, runs, scores, comparisons, provenance)
        (draft / "index.html").write_text(html, encoding="utf-8")
        (draft / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        (draft / "metrics.csv").write_text(metrics_csv(scores), encoding="utf-8")
        (draft / "REPORT.md").write_text(markdown(settings, scores, comparisons, headlines), encoding="utf-8")
    show(arguments.output)


def show(folder: Path) -> None:
    """Print where the report lies and each variant's headline."""
    headlines = stage.read_json(folder / "summary.json")["headlines"]
    print("\n".join([f"report: {folder / 'index.html'}", *headlines]))


def describe(settings: Inputs, runs: list[Run]) -> dict[str, Any]:
    """Where everything came from: assets, code, environments, machine."""
    assets = []
    for manifest in {name: manifest for run in runs for name, manifest in run.assets.items()}.values():
        files = manifest["files"]
        listing = "".join(f"{f['sha256']}  {f['path']}\n" for f in sorted(files, key=lambda f: f["path"]))
        assets.append({
            **{key: manifest[key] for key in ("name", "kind", "source", "repository", "revision")},
            "files": len(files), "size": sum(f["size"] for f in files),
            "sha256": hashlib.sha256(listing.encode()).hexdigest(),
            "list": files[:40], "more": max(0, len(files) - 40),
        })  # fmt: skip
    code = Path(__file__).parent
    commit = _git(code, "rev-parse", "HEAD") or "not in a git checkout"
    if _git(code, "status", "--porcelain", "--untracked-files=no", "--", str(code.parents[2])):
        commit += ", with local changes"
    packages = ("matplotlib", "polars", "scipy", "snakemake")
    software = [
        ("commit", commit),
        ("reported on", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        *((name, importlib.metadata.version(name)) for name in packages),
        *((f"{name} (scoring)", version) for name, version in runs[0].scoring["versions"].items()),
        *((f"{path.name}, SHA-256", stage.file_sha256(path)) for path in settings.locks.values()),
    ]
    return {
        "commit": commit,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "assets": assets,
        "software": software,
    }


def _git(folder: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git or no checkout."""
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def metrics_csv(scores: dict[str, Any]) -> str:
    """A row a measure, scores as fractions; ``chosen``: 1 for the checkpoint of the headline."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["variant", "benchmark", "model", "metric", "value", "low", "high", "problems", "samples", "chosen"]
    )
    for variant, result in scores.items():
        for name, benchmark in result["benchmarks"].items():
            for model, v in benchmark["models"].items():
                rows = [("avg", v["avg"], v["low"], v["high"])]
                rows += [(f"pass@{k}", value, None, None) for k, value in v["pass"].items()]
                rows += [(key, v[key], None, None) for key in ("maj", "truncated", "mean_tokens", "detectable")]
                if d := v["difference"]:
                    rows.append(("difference", d["difference"], d["low"], d["high"]))
                    rows.append(("p_holm" if "p_holm" in d else "p", d.get("p_holm", d["p"]), None, None))
                size = (benchmark["problems"], benchmark["samples"], int(model == result["checkpoint"]))
                writer.writerows([(variant, name, model, *row, *size) for row in rows])
    return text.getvalue()


def markdown(settings: Inputs, scores: dict[str, Any], pairs: list[dict[str, Any]], headlines: list[str]) -> str:
    """The headline, the choice of the checkpoint and the tables, as Markdown."""
    lines = [f"# {settings.report.title}", "", *(f"- {line}" for line in headlines), ""]
    for variant, result in scores.items():
        lines += [f"## {variant}", "", f"Checkpoint {result['checkpoint']}: {result['why']}.", ""]
        lines += [
            "| benchmark | model | avg@k | minus base | p (Holm) | pass@k | maj@k | cut off | tokens |",
            "| --- " * 9 + "|",
        ]
        for name, benchmark in result["benchmarks"].items():
            for model, v in benchmark["models"].items():
                d = v["difference"]
                cells = [
                    name,
                    f"**{model}**" if model == result["checkpoint"] else model,
                    f"{words.percent(v['avg'])} ({words.percent(v['low'])} to {words.percent(v['high'])})",
                    said(d) if d else "–",
                    words.pvalue(d["p_holm"]) if d and "p_holm" in d else "–",
                    words.percent(v["pass"][benchmark["samples"]]),
                    words.percent(v["maj"]),
                    words.percent(v["truncated"]),
                    f"{v['mean_tokens']:.0f}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if pairs:
        lines += [
            "## Variants side by side",
            "",
            "| pair | benchmark | second minus first | p (Holm) |",
            "| --- " * 4 + "|",
        ]
        for c in pairs:
            d = c["difference"]
            lines.append(
                f"| {c['first']} → {c['second']} | {c['benchmark']} | {said(d)} | {words.pvalue(d['p_holm'])} |"
            )
        lines.append("")
    closing = "Scores are percentages with 95 % intervals, differences are in points. The whole report is index.html."
    return "\n".join([*lines, closing, ""])


def said(difference: dict[str, Any]) -> str:
    """A difference in words."""
    interval = f"{words.points(difference['low'])} to {words.points(difference['high'])}"
    verdict = "" if difference["different"] else f", {difference['verdict']}"
    return f"{words.points(difference['difference'])} ({interval}){verdict}"


if __name__ == "__main__":
    stage.run(main)
