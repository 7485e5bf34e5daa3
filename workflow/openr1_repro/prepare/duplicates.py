"""The same problem twice: equal, nearly equal, or with another answer."""

import numpy as np
import polars as pl
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .answers import in_workers, same
from .ngrams import ngram_hashes
from .settings import AnswerFilter, NearDuplicates
from .text import facts

_CHUNK = 10_000
_SEED = 42


def preference(rows: pl.DataFrame) -> pl.Series:
    """Which of several duplicates stays: the one with the lowest rank.

    Most right traces first, then the earlier data set of the mixture, then the smaller uuid, then the earlier row.
    """
    keys = (-pl.col("traces").cast(pl.Int64), "part", "uuid", "file", "row")
    order = rows.select(pl.arg_sort_by(*keys, maintain_order=True)).to_series().to_numpy()
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return pl.Series("preference", rank)


def repeats(what: str, columns: list[str]) -> pl.Expr:
    """Marks rows that have a preferred one (column preference) among those with equal ``columns``, and names it."""
    best = pl.col("preference") == pl.col("preference").min().over(columns)
    kept = pl.col("uuid").sort_by("preference").first().over(columns)
    return pl.when(~best).then(pl.format("{}: {}", pl.lit(what), kept))


def contradictory(rows: pl.DataFrame, answer: AnswerFilter | None) -> pl.Series:
    """Marks all copies of a problem (equal ``normal``) whose answers differ.

    Answers written in two ways are no contradiction if math-verify, where ``answer.parse`` allows it, finds them equal.
    """
    groups = (
        rows.select("normal", "answer_form", "answer").filter(pl.col("answer_form").n_unique().over("normal") > 1)
        .group_by("normal", maintain_order=True)
        .agg(pl.col("answer").gather(pl.col("answer_form").arg_unique()))
    )  # fmt: skip
    agree = np.zeros(groups.height, bool)
    if answer and answer.parse and groups.height:
        pairs = [(number, (first, other)) for number, (first, *rest) in enumerate(groups["answer"]) for other in rest]
        verdicts = in_workers(same, [pair for _, pair in pairs], answer.timeout)
        agree[:] = True
        for (number, _), verdict in zip(pairs, verdicts, strict=True):
            agree[number] &= bool(verdict)
    at_odds = groups.filter(~agree)["normal"]
    return rows.select(pl.when(pl.col("normal").is_in(at_odds.implode())).then(pl.lit("another answer elsewhere")))[
        "literal"
    ]


def clusters(normal: pl.Series, settings: NearDuplicates) -> np.ndarray:
    """Group problems that are nearly equal.

    MinHash over shingles of the normal form, in LSH bands. Each problem of a bucket is compared with the bucket's first
    by the exact Jaccard similarity of their shingles, so the cost is linear in rows even where a template fills a
    bucket. With ``same_facts`` the facts are part of the bucket's key.

    Args:
        normal: normal forms, none null.

    Returns:
        int64 [rows]: the number of the first row of each row's cluster.
    """
    per_band = settings.num_perm // settings.bands
    shingles, offsets = ngram_hashes(normal, settings.shingle, whole=True)
    key = np.zeros(len(normal), np.uint64)
    if settings.same_facts:
        key = normal.to_frame("t").select(facts(pl.col("t")).hash())["t"].to_numpy()
    buckets = np.empty((settings.bands, len(normal)), np.uint64)
    for start in range(0, len(normal), _CHUNK):
        stop = min(start + _CHUNK, len(normal))
        part = np.ascontiguousarray(shingles[offsets[start] : offsets[stop]])
        bounds = (offsets[start : stop + 1] - offsets[start]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(part, bounds, settings.num_perm, _SEED)
        digests = np.array(matrix.to_rows(), np.uint64).reshape(stop - start, settings.bands, per_band)
        for band in range(settings.bands):
            mixed = key[start:stop].copy()
            for column in range(per_band):
                mixed = (mixed ^ digests[:, band, column]) * np.uint64(0x9E3779B97F4A7C15)
                mixed ^= mixed >> np.uint64(31)
            buckets[band, start:stop] = mixed
    linked = []
    for bucket in buckets:
        order = np.argsort(bucket, kind="stable")
        new = np.concatenate([[True], bucket[order][1:] != bucket[order][:-1]])
        first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        linked.append(np.stack([first[~new], order[~new]], axis=1))
    pairs = np.unique(np.concatenate(linked), axis=0)
    similar = np.zeros(len(pairs), bool)
    for number, (a, b) in enumerate(pairs):
        left, right = (
            set(shingles[offsets[a] : offsets[a + 1]].tolist()),
            set(shingles[offsets[b] : offsets[b + 1]].tolist()),
        )
        shared = len(left & right)
        similar[number] = shared >= settings.threshold * (len(left) + len(right) - shared)
    pairs = pairs[similar]
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(normal), len(normal)))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]
