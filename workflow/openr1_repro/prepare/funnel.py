"""The count of what every filter dropped, and examples of it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from openr1_repro.stage import UserError

from .settings import PrepareSettings

EXAMPLES = 5
EXAMPLE_CHARS = 400
BINS = 20


class Funnel:
    """Applies filters to the rows and remembers what each of them did."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.dropped: list[pl.DataFrame] = []
        self.examples: list[pl.DataFrame] = []

    def drop(self, rows: pl.DataFrame, name: str, key: str, reason: pl.Expr | pl.Series) -> pl.DataFrame:
        """Drop the rows that have a reason.

        Args:
            rows: what is left so far.
            name: of the filter.
            key: the setting that decides, below ``prepare``.
            reason: string, one a row: why it goes; null: it stays. What follows ": " is detail and not counted apart.

        Raises:
            UserError: if no row is left.
        """
        marked = rows.with_columns(reason.alias("reason"))
        dropped = marked.filter(pl.col("reason").is_not_null())
        kept = rows.filter(marked["reason"].is_null())
        self.dropped.append(dropped.select("part", "file", "row", "uuid", pl.lit(name).alias("step"), "reason"))
        counts = dropped.group_by(pl.col("reason").str.split(": ").list.first()).len()
        self.steps.append({
            "name": name,
            "setting": key,
            "rows_in": rows.height,
            "rows_out": kept.height,
            "dropped": dropped.height,
            "reasons": dict(counts.sort("len", "reason", descending=[True, False]).iter_rows()),
        })  # fmt: skip
        self.examples.append(examples(dropped))
        print(f"{name}: {rows.height:,} -> {kept.height:,}", flush=True)
        if kept.is_empty():
            shown = "".join(
                f"\ne.g. row {e['row']} ({e['uuid']}): {e['reason']}"
                for e in self.examples[-1].head(3).iter_rows(named=True)
            )
            raise UserError(
                f"prepare.{key}: no row is left after {name!r} dropped {dropped.height:,}; loosen it{shown}"
            )
        return kept


def record(
    funnel: Funnel,
    settings: PrepareSettings,
    counts_in: list[int],
    splits: dict[str, pl.DataFrame],
    problems: Callable[[pl.DataFrame], pl.Series],
) -> dict[str, Any]:
    """What becomes ``funnel.json``: inputs, every step, what came out and how it is made up.

    Args:
        problems: the problems of a few rows, given their part, file and row.
    """
    rows = pl.concat(splits.values())
    names = pl.col("source").fill_null("none")
    shown = [*funnel.examples, examples(rows)]
    texts = problems(pl.concat([frame.select("part", "file", "row") for frame in shown])).str.slice(0, EXAMPLE_CHARS)
    described = []
    for frame in shown:
        texts, here = texts[frame.height :], texts[: frame.height]
        described.append(frame.select("uuid", "source", "row", here.alias("problem"), "answer", "^reason$").to_dicts())
    return {
        "settings": settings.model_dump(mode="json"),
        "inputs": [
            {"asset": part.asset, "files": part.files, "weight": part.weight, "rows": count}
            for part, count in zip(settings.datasets, counts_in, strict=True)
        ],
        "steps": [step | {"examples": dropped} for step, dropped in zip(funnel.steps, described[:-1], strict=True)],
        "output": {name: split.height for name, split in splits.items()},
        "sources": dict(rows.group_by(names).len().sort("len", "source", descending=[True, False]).iter_rows()),
        "prompt_tokens": histogram(rows["prompt_tokens"]),
        "problem_chars": histogram(rows["problem_chars"]),
        "solution_chars": histogram(rows["solution_chars"]),
        "kept": described[-1],
    }


def histogram(values: pl.Series) -> dict[str, Any] | None:
    """Counts in bins of equal width, the last one open from the 99th percentile on; null if there are no values."""
    values = values.drop_nulls().cast(pl.Int64)
    if values.is_empty():
        return None
    width = max(1, math.ceil(int(values.quantile(0.99, "higher")) / (BINS - 1)))  # type: ignore[arg-type]
    counts = np.bincount(np.minimum(values.to_numpy() // width, BINS - 1), minlength=BINS)
    return {"bin": width, "counts": counts.tolist(), "median": int(values.median()), "max": int(values.max())}  # type: ignore[arg-type]


def examples(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows spread evenly over a frame, for a person to look at."""
    shown = rows.gather_every(max(1, math.ceil(rows.height / EXAMPLES)))
    answer = pl.col("answer").str.slice(0, EXAMPLE_CHARS)
    return shown.select("part", "file", "row", "uuid", "source", answer, "^reason$")
