"""The same problem twice: equal, nearly equal, or with another answer."""

from collections.abc import Callable, Iterable

import numpy as np
import polars as pl
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .answers import in_workers, same
from .ngrams import TEXT_AT_ONCE, ngram_hashes, runs
from .settings import AnswerFilter, NearDuplicates

_PAIRS_AT_ONCE = 32_000_000  # bytes of text: the problems are read again for every so many
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
    """Marks all copies of a problem (equal ``normal``, a hash of its normal form) whose answers differ.

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


def band_hashes(rows: pl.DataFrame, settings: NearDuplicates) -> np.ndarray:
    """The LSH buckets of problems, by MinHash over shingles of the normal form: nearly equal problems share one.

    Args:
        rows: columns normal and facts (a hash of its `facts`), none null; `TEXT_AT_ONCE` or so. With ``same_facts``
            problems of different facts share no bucket.

    Returns:
        uint64 [bands, rows].
    """
    per_band = settings.num_perm // settings.bands
    shingles, offsets = ngram_hashes(rows["normal"], settings.shingle, whole=True)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles, offsets.astype(np.uint64), settings.num_perm, _SEED
    )
    digests = np.array(matrix.to_rows(), np.uint64).reshape(rows.height, settings.bands, per_band)
    key = rows["facts"].to_numpy() if settings.same_facts else np.zeros(rows.height, np.uint64)
    mixed = np.repeat(key[:, None], settings.bands, axis=1)
    for column in range(per_band):
        mixed = (mixed ^ digests[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(31)
    return mixed.T


def clusters(
    bands: Iterable[np.ndarray],
    sizes: np.ndarray,
    normal_forms: Callable[[np.ndarray], pl.Series],
    settings: NearDuplicates,
) -> np.ndarray:
    """Group problems that are nearly equal.

    Each problem of a bucket is compared with the bucket's first by the exact Jaccard similarity of their shingles, so
    the cost is linear in rows even where a template fills a bucket.

    Args:
        bands: uint64 [rows] each: the buckets of one band, as `band_hashes` gives them.
        sizes: [rows]: of the problems, in characters.
        normal_forms: those of rows, given their numbers in ascending order.

    Returns:
        int64 [rows]: the number of the first row of each row's cluster.
    """
    pairs = np.zeros(0, np.uint64)  # the first row's number, then the other's, 32 bits each
    for bucket in bands:
        order = np.argsort(bucket, kind="stable")
        new = np.concatenate([[True], bucket[order][1:] != bucket[order][:-1]])
        first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        pairs = np.union1d(pairs, first[~new].astype(np.uint64) << np.uint64(32) | order[~new].astype(np.uint64))
    ends = np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)])
    alike = np.zeros(len(pairs), bool)
    for run in runs(sizes[ends].sum(0), _PAIRS_AT_ONCE):
        members, where = np.unique(ends[:, run], return_inverse=True)
        normal = normal_forms(members)
        shingles: list[np.ndarray] = []
        for piece in runs(normal.str.len_bytes().to_numpy(), TEXT_AT_ONCE):
            hashes, offsets = ngram_hashes(normal[piece], settings.shingle, whole=True)
            shingles += np.split(hashes, offsets[1:-1])
        for pair, (a, b) in enumerate(where.T.tolist(), run.start):
            left, right = set(shingles[a].tolist()), set(shingles[b].tolist())
            shared = len(left & right)
            alike[pair] = shared >= settings.threshold * (len(left) + len(right) - shared)
    first, other = ends[:, alike]
    graph = coo_array((np.ones(len(first), bool), (first, other)), shape=(len(sizes), len(sizes)))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]
