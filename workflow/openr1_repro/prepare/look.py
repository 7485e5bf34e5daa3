"""All that the later filters ask of a problem's text, in one pass over it."""

from pathlib import Path

import numpy as np
import polars as pl

from .contamination import Benchmarks
from .duplicates import band_hashes
from .ngrams import TEXT_AT_ONCE, runs
from .prompts import PromptCounter
from .read import read_again
from .settings import DatasetPart, NearDuplicates
from .text import facts, normal_form

PROBLEM = pl.col("problem")


def look_at_problems(
    rows: pl.DataFrame,
    parts: list[DatasetPart],
    assets: Path,
    near: NearDuplicates,
    benchmarks: Benchmarks | None,
    counter: PromptCounter | None,
) -> tuple[pl.DataFrame, np.ndarray]:
    """Read every problem that is left once more, and keep numbers of it alone.

    Returns:
        ``rows`` with place (its number here), normal (a hash of the normal form: two of a million problems have the
        same by chance once in forty million runs), contamination (the reason, null: clean) and prompt_tokens (null
        without a counter); uint64 [bands, rows], the `band_hashes`.
    """
    bands = np.empty((near.bands, rows.height), np.uint64)
    normal = normal_form(PROBLEM)
    forms = {"normal": normal, "facts": facts(normal).hash()}
    found = []
    for places, batch in read_again(parts, assets, rows, ["problem"], forms):
        for run in runs(batch["problem"].str.len_bytes().to_numpy(), TEXT_AT_ONCE):
            here, place = batch[run], pl.Series(places[run]).alias("place")
            bands[:, places[run]] = band_hashes(here, near)
            reasons = benchmarks.find(here) if benchmarks else pl.lit(None, pl.String)
            tokens = pl.Series(counter.count(here["problem"])) if counter else pl.lit(None, pl.Int64)
            found.append(here.select(place, pl.col("normal").hash(), contamination=reasons, prompt_tokens=tokens))
    return rows.hstack(pl.concat(found).sort("place")), bands


def problems_of(parts: list[DatasetPart], assets: Path, rows: pl.DataFrame, form: pl.Expr = PROBLEM) -> pl.Series:
    """The problems of a few rows, or a form of them, in the order of the rows."""
    found = [
        batch.select(pl.Series(places).alias("place"), form.alias("form"))
        for places, batch in read_again(parts, assets, rows, ["problem"])
    ]
    return pl.concat(found).sort("place")["form"]
