"""Drawing rows: at random but repeatably, in shares, and whole clusters for validation."""

import hashlib

import numpy as np
import polars as pl


def lottery(uuids: pl.Series, seed: int, purpose: str) -> np.ndarray:
    """A random rank for every row (0 comes first) by a hash of seed, purpose and uuid: rows that come or go do not reorder the others.

    Returns:
        uint32 [rows], each rank once.
    """
    keys = b"".join(hashlib.blake2b(f"{seed}:{purpose}:{uuid}".encode(), digest_size=8).digest() for uuid in uuids)
    order = np.argsort(np.frombuffer(keys, ">u8"), kind="stable")
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return rank


def first_in_share(group: pl.Series, rank: np.ndarray, quotas: dict[object, int]) -> pl.Series:
    """Whether each row is among the ``quotas[its group]`` rows of lowest rank of its group."""
    frame = pl.DataFrame({"group": group, "rank": rank})
    place = frame.select(pl.col("rank").rank("ordinal").over("group"))["rank"]
    return place <= group.replace_strict(quotas, return_dtype=pl.Int64)


def shares(group: pl.Series, size: int) -> dict[object, int]:
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
    """Whether each row is in the validation split: whole clusters by their lowest rank, each that still fits, until there are ``size`` rows."""
    groups = pl.DataFrame({"cluster": cluster, "rank": rank}).group_by("cluster").agg(pl.col("rank").min(), pl.len()).sort("rank")
    taken, left = [], size
    for label, _, count in groups.iter_rows():
        if left == 0:
            break
        if count <= left:
            taken.append(label)
            left -= count
    return cluster.is_in(pl.Series(taken, dtype=cluster.dtype).implode())
