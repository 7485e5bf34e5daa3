"""Hashes of every n tokens in a row, for many texts at once: a few megabytes, or `runs` of them."""

import itertools

import numpy as np
import polars as pl

TEXT_AT_ONCE = 4_000_000
"""Bytes of text whose tables fit into memory with ease: they take about 20 times as much."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd and without pattern: 2^64 over the golden ratio


def ngram_hashes(texts: pl.Series, n: int, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Hash every n-gram of texts whose tokens stand between single spaces.

    Args:
        texts: strings, none null.
        n: tokens in an n-gram.
        whole: count a text of fewer tokens as one n-gram; else it has none.

    Returns:
        hashes: uint64, the n-grams of the first text, then of the second …
        offsets: int64 [len(texts) + 1]: text i has ``hashes[offsets[i]:offsets[i + 1]]``.
    """
    tokens = texts.str.split(" ")
    lengths = tokens.list.len().to_numpy().astype(np.int64)
    hashes = tokens.explode().hash().to_numpy()
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(hashes))  # tokens from here to the end of the text
    rolled = hashes * _MULTIPLIER
    for step in range(1, n):
        inside = left[: max(0, len(hashes) - step)] > step
        rolled[: len(inside)] += np.where(inside, hashes[step:], 0)
        rolled *= _MULTIPLIER
        rolled ^= rolled >> np.uint64(29)
    full = left >= n
    counts = np.maximum(lengths - n + 1, 0)
    if whole:
        starts = np.cumsum(lengths) - lengths
        full[starts[lengths < n]] = True
        counts[lengths < n] = 1
    return rolled[full], np.concatenate([[0], np.cumsum(counts)])


def runs(sizes: np.ndarray, most: int) -> list[slice]:
    """Cut rows of such sizes into runs of about ``most`` in all.

    >>> runs(np.array([2, 2, 2, 9, 1]), 5)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    edges = np.flatnonzero(np.diff(np.cumsum(sizes) // most)) + 1
    return [slice(a, b) for a, b in itertools.pairwise([0, *edges.tolist(), len(sizes)]) if a < b]
