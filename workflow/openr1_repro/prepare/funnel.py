"""The count of what every filter dropped, and examples of it."""

import math
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
            "examples": examples(dropped),
        })  # fmt: skip
        print(f"{name}: {rows.height:,} -> {kept.height:,}", flush=True)
        if kept.is_empty():
            shown = "".join(
                f"\ne.g. row {e['row']} ({e['uuid']}): {e['reason']}" for e in self.steps[-1]["examples"][:3]
            )
            raise UserError(
                f"prepare.{key}: no row is left after {name!r} dropped {dropped.height:,}; loosen it{shown}"
            )
        return kept


def record(
    funnel: Funnel, settings: PrepareSettings, counts_in: list[int], splits: dict[str, pl.DataFrame]
) -> dict[str, Any]:
    """What becomes ``funnel.json``: inputs, every step, what came out and how it is made up."""
    rows = pl.concat(splits.values())
    names = pl.col("source").fill_null("none")
    return {
        "settings": settings.model_dump(mode="json"),
        "inputs": [
            {"asset": part.asset, "files": part.files, "weight": part.weight, "rows": count}
            for part, count in zip(settings.datasets, counts_in, strict=True)
        ],
        "steps": funnel.steps,
        "output": {name: split.height for name, split in splits.items()},
        "sources": dict(rows.group_by(names).len().sort("len", "source", descending=[True, False]).iter_rows()),
        "prompt_tokens": histogram(rows["prompt_tokens"]),
        "problem_chars": histogram(rows["problem"].str.len_chars()),
        "solution_chars": histogram(rows["solution_chars"]),
        "kept": examples(rows),
    }


def histogram(values: pl.Series) -> dict[str, Any] | None:
    """Counts in bins of equal width, the last one open from the 99th percentile on; null if there are no values."""
    values = values.drop_nulls().cast(pl.Int64)
    if values.is_empty():
        return None
    width = max(1, math.ceil(int(values.quantile(0.99, "higher")) / (BINS - 1)))  # type: ignore[arg-type]
    counts = np.bincount(np.minimum(values.to_numpy() // width, BINS - 1), minlength=BINS)
    return {"bin": width, "counts": counts.tolist(), "median": int(values.median()), "max": int(values.max())}  # type: ignore[arg-type]


def examples(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows spread evenly over a frame, shortened, for a person to look at."""
    shown = rows.gather_every(max(1, math.ceil(rows.height / EXAMPLES)))
    texts = [pl.col(c).str.slice(0, EXAMPLE_CHARS) for c in ("problem", "answer")]
    return shown.select("uuid", "source", "row", *texts, *(c for c in ("reason",) if c in rows.columns)).to_dicts()
