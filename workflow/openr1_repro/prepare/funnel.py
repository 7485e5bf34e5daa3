"""The count of what every filter dropped, and examples of it."""

import math
from typing import Any

import numpy as np
import polars as pl

from openr1_repro.stage import UserError

from .settings import PrepareSettings

BINS = 20
EXAMPLES = 5
EXAMPLE_CHARS = 400


class Funnel:
    """Applies filters to the rows and keeps the record that becomes ``funnel.json``."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def drop(self, rows: pl.DataFrame, name: str, reason: pl.Expr | pl.Series, key: str) -> pl.DataFrame:
        """Drop the rows whose ``reason`` is not null.

        Args:
            rows: the rows that are left.
            name: of the filter.
            reason: string, one a row: why it goes; null: it stays. Text after ": " is detail, and not counted apart.
            key: the setting that decides, for the error.

        Raises:
            UserError: if no row is left.
        """
        marked = rows.with_columns(reason.alias("_reason"))
        dropped = marked.filter(pl.col("_reason").is_not_null())
        kept = marked.filter(pl.col("_reason").is_null()).drop("_reason")
        counts = (
            dropped.group_by(pl.col("_reason").str.split(": ").list.first().alias("reason")).len().sort("len", "reason", descending=[True, False])
        )
        self.steps.append({
            "name": name, "setting": key, "rows_in": rows.height, "rows_out": kept.height, "dropped": dropped.height,
            "reasons": dict(counts.iter_rows()), "examples": examples(dropped),
        })  # fmt: skip
        print(f"{name}: {rows.height:,} -> {kept.height:,}", flush=True)
        if rows.height and not kept.height:
            raise UserError(
                f"prepare.{key}: this filter dropped the last {dropped.height:,} rows, none is left; loosen it\n"
                + "\n".join(f"e.g. row {e['row']} ({e['uuid']}): {e['reason']}" for e in self.steps[-1]["examples"][:3])
            )
        return kept


    def record(self, inputs: list[dict[str, Any]], rows: pl.DataFrame, counts: dict[str, int], settings: PrepareSettings) -> dict[str, Any]:
        """What becomes ``funnel.json``: inputs, every step, what came out and how it is made up."""
        sources = rows.group_by(pl.col("source").fill_null("none")).len().sort("len", "source", descending=[True, False])
        return {
            "settings": settings.model_dump(mode="json"),
            "inputs": inputs,
            "steps": self.steps,
            "output": counts,
            "sources": dict(sources.iter_rows()),
            "prompt_tokens": histogram(rows["prompt_tokens"]),
            "problem_chars": histogram(rows["problem"].str.len_chars()),
            "solution_chars": histogram(rows["solution_chars"]),
            "kept": examples(rows),
        }


def histogram(values: pl.Series) -> dict[str, Any] | None:
    """Counts in 20 bins of equal width up to the 99th percentile, the last one open; null if there are no values."""
    values = values.drop_nulls().cast(pl.Int64)
    if values.is_empty():
        return None
    top = int(values.quantile(0.99, "higher") or 0)
    width = max(1, math.ceil((top + 1) / BINS))
    counts = np.bincount(np.minimum(values.to_numpy() // width, BINS - 1), minlength=BINS)
    return {"bin": width, "counts": counts.tolist(), "median": int(values.median() or 0), "max": int(values.max() or 0)}


def examples(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Some rows spread evenly over a frame, shortened, for a person to look at."""
    step = max(1, -(-rows.height // EXAMPLES))
    shown = rows.gather_every(step).select(
        "uuid", "source", "row", pl.col("problem").str.slice(0, EXAMPLE_CHARS), pl.col("answer").str.slice(0, EXAMPLE_CHARS),
        *([pl.col("_reason").alias("reason")] if "_reason" in rows.columns else []),
    )  # fmt: skip
    return shown.to_dicts()
