"""Score: what lighteval says of every stored response, to a row a sample, beside lighteval's own results.

    python -m openr1_repro.evaluate.score --settings @evaluate.json --assets results/assets --responses responses.parquet \\
        --work results/runs/quickstart/.evaluate --output scores.parquet --summary scores.json

Runs in lighteval's own environment (envs/lighteval.txt), offline. Equal answers are judged once; verdicts are kept in --work.
"""

import argparse
import importlib.metadata
import os
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import polars as pl

from openr1_repro import stage
from openr1_repro.evaluate.protocol import describe
from openr1_repro.evaluate.settings import VALIDATION, BenchmarkSettings, StageSettings

# lighteval and its libraries look for a hub while they are imported, and for a cache below HOME
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
for library in ("OMP", "OPENBLAS", "MKL"):  # nothing here computes, and the workers share the cores
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

KEYS = ["model", "benchmark", "item", "sample"]


def main() -> None:
    """Read the responses, judge each distinct answer, let lighteval aggregate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage.add_settings_argument(parser)
    parser.add_argument(
        "--assets", type=Path, help="folder of the download stage (unused: the responses hold the golds)"
    )
    parser.add_argument("--responses", type=Path, required=True, help="what generate wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps verdicts across runs")
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write: a row a sample")
    parser.add_argument(
        "--summary", type=Path, required=True, help="JSON file to write: lighteval's aggregates, versions, protocol"
    )
    args = parser.parse_args()
    settings = stage.parse_settings(args.settings, StageSettings)
    rows = read_responses(args.responses)
    for folder in ("lighteval", "hf"):  # lighteval's results and the data sets' cache: of this run only
        shutil.rmtree(args.work / folder, ignore_errors=True)
    os.environ["HF_HOME"] = str(args.work.resolve() / "hf")
    from openr1_repro.evaluate.replay import replay  # takes seconds: after everything that can be wrong is checked
    from openr1_repro.evaluate.verdicts import Claim, judge_all, metric_named

    definitions = {**settings.benchmarks, VALIDATION: BenchmarkSettings(dataset="")}
    claims: dict[tuple[Any, ...], Claim] = {}
    for row in rows.iter_rows(named=True):
        benchmark = definitions.get(row["benchmark"])
        if benchmark is None:
            raise stage.UserError(
                f"{args.responses}: benchmark {row['benchmark']!r} is not in --settings; generate anew"
            )
        answer = answer_of(row["prompt"], row["text"])
        claims[tuple(row[key] for key in KEYS)] = Claim(benchmark.metric, len(benchmark.choices), row["gold"], answer)
    for name in sorted({claim.metric for claim in claims.values()}):
        metric_named(name)
    started = time.monotonic()
    verdicts = judge_all(
        claims.values(), args.work / "verdicts.jsonl", len(os.sched_getaffinity(0)),
        settings.evaluate.score_timeout, settings.evaluate.score_memory,
    )  # fmt: skip
    print(f"{len(claims)} samples, {len(verdicts)} distinct answers, {time.monotonic() - started:.1f} s", flush=True)

    by_model: dict[str, dict[str, dict[int, list[Claim]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (model, name, item, _), claim in claims.items():
        by_model[model][name][item].append(claim)
    aggregates = {
        model: replay(
            model, {name: list(items.values()) for name, items in of_model.items()}, verdicts, args.work / "lighteval"
        )
        for model, of_model in by_model.items()
    }
    judged = [verdicts[claim] for claim in claims.values()]
    scores = rows.select(*KEYS, "num_tokens", "finish_reason").with_columns(
        score=pl.Series([verdict.score for verdict in judged], dtype=pl.Float64),
        extracted=pl.Series([verdict.extracted for verdict in judged], dtype=pl.String),
    )
    with stage.replacing(args.output) as draft:
        scores.select(*KEYS, "score", "extracted", "num_tokens", "finish_reason").write_parquet(draft)
    versions = ("lighteval", "latex2sympy2_extended", "sympy", "transformers", "torch")
    stage.write_json(args.summary, {
        "protocol": describe(settings.evaluate),
        "benchmarks": {name: b.model_dump(mode="json") for name, b in settings.benchmarks.items()},
        "lighteval": aggregates,
        "versions": {name: importlib.metadata.version(name) for name in versions},
        "samples": len(claims),
        "distinct_answers": len(verdicts),
        "failures": dict(Counter(v.failure.split(":")[0] for v in verdicts.values() if v.failure)),
    })  # fmt: skip


def read_responses(path: Path) -> pl.DataFrame:
    """The responses by model, benchmark, item and sample.

    Raises:
        UserError: if the file is missing, empty or lacks samples.
    """
    try:
        rows = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise stage.UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); run generate again") from None
    if missing := {*KEYS, "gold", "prompt", "text", "num_tokens", "finish_reason"} - set(rows.columns):
        raise stage.UserError(f"{path}: no column {', '.join(sorted(missing))}; run generate again")
    if rows.is_empty():
        raise stage.UserError(f"{path}: no responses; run generate again")
    counts = rows.group_by("model", "benchmark", "item").len()
    uneven = counts.group_by("model", "benchmark").agg(pl.col("len").n_unique()).filter(pl.col("len") > 1)
    if uneven.height:
        model, benchmark, _ = uneven.row(0)
        raise stage.UserError(
            f"{path}: {model} has not the same number of samples for every problem of {benchmark}; generate anew"
        )
    return rows.sort(KEYS)


def answer_of(prompt: str, text: str) -> str:
    """What follows the reasoning: the part after the last ``</think>``; nothing if a ``<think>`` was opened and never closed.

    >>> answer_of("2 + 2", "<think>maybe 5</think>4"), answer_of("2 + 2", "<think>4"), answer_of("2 + 2", "4")
    ('4', '', '4')

    A template may have opened it: then the prompt ends with ``<think>``.
    """
    opened = "<think>" in text or prompt.rstrip().endswith("<think>")
    _, closed, answer = text.rpartition("</think>")
    if closed:
        return "" if "<think>" in answer else answer
    return "" if opened else text


if __name__ == "__main__":
    stage.run(main)
