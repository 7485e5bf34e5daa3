"""Drawing rows: at random but repeatably, in shares, and whole clusters for validation."""

import hashlib
import math
from typing import Any

import numpy as np
import polars as pl

from .settings import PrepareSettings


def lottery(uuids: pl.Series, seed: int, purpose: str) -> np.ndarray:
    """A random rank for every row (0 comes first) by a hash of seed, purpose and uuid.

    Rows that come or go do not reorder the others.

    Returns:
        uint32 [rows], each rank once.
    """
    keys = (hashlib.blake2b(f"{seed}:{purpose}:{uuid}".encode(), digest_size=8).digest() for uuid in uuids)
    return _ranks(np.argsort(np.frombuffer(b"".join(keys), ">u8"), kind="stable"))


def not_drawn(group: pl.Series, rank: np.ndarray, quotas: dict[Any, int]) -> pl.Series:
    """Marks all but the ``quotas[its group]`` rows of lowest rank of every group."""
    frame = pl.DataFrame({"group": group, "rank": rank})
    place = pl.col("rank").rank("ordinal").over("group")
    quota = pl.col("group").replace_strict(quotas, return_dtype=pl.Int64)
    return frame.select(pl.when(place > quota).then(pl.lit("not drawn")))["literal"]


def not_sampled(rows: pl.DataFrame, settings: PrepareSettings) -> pl.Series:
    """Marks all but ``sample.size`` rows: the greatest by ``sample.order``, or random ones; in shares of the strata."""
    assert settings.sample
    rank = lottery(rows["uuid"], settings.seed, "sample")
    if settings.sample.order:  # rows without a value come last
        rank = _ranks(np.lexsort((rank, -rows["order"].fill_nan(None).fill_null(-math.inf).to_numpy())))
    group = rows["stratum"].fill_null("") if settings.sample.stratify else pl.repeat("", rows.height, eager=True)
    return not_drawn(group, rank, shares(group, min(settings.sample.size, rows.height)))


def shares(group: pl.Series, size: int) -> dict[Any, int]:
    """``size`` rows shared among groups as the groups share the rows; largest remainders, so that it adds up.

    >>> shares(pl.Series(["a", "a", "a", "b"]), 2)
    {'a': 2, 'b': 0}
    """
    counts = group.to_frame("group").group_by("group").len().sort("group")
    exact = counts["len"].to_numpy() * (size / len(group))
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: size - quota.sum()]] += 1
    return dict(zip(counts["group"], quota.tolist(), strict=True))


def held_back(cluster: pl.Series, rank: np.ndarray, size: int) -> pl.Series:
    """Whether each row is for validation: whole clusters by lowest rank, each that still fits, up to ``size`` rows."""
    groups = pl.DataFrame({"cluster": cluster, "rank": rank}).group_by("cluster").agg(pl.col("rank").min(), pl.len())
    taken, left = [], size
    for label, _, count in groups.sort("rank").iter_rows():
        if left == 0:
            break
        if count <= left:
            taken.append(label)
            left -= count
    return cluster.is_in(pl.Series(taken, dtype=cluster.dtype).implode())


def _ranks(order: np.ndarray) -> np.ndarray:
    """The place of each index in an order."""
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return rank
