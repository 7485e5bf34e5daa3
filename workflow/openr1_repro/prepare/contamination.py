"""Does a problem occur in a benchmark? Word n-grams as in s1 (arXiv 2501.19393) and open-r1, and containment of one problem in the other."""

import numpy as np
import polars as pl

from .ngrams import ngram_hashes
from .settings import Contamination
from .text import letters, words

_CHUNK = 50_000
_TABLE_BITS = 24


def contaminated(problems: pl.Series, benchmarks: dict[str, list[str]], settings: Contamination) -> pl.Series:
    """Which problems occur in a benchmark, and in which of its items.

    Args:
        problems: strings, none null.
        benchmarks: problems of each.

    Returns:
        Strings, one a problem: ``aime24: item 3: shares "the number of …"``; null: clean.
    """
    reasons: list[str | None] = [None] * len(problems)
    items = [(name, index, text) for name, texts in benchmarks.items() for index, text in enumerate(texts) if text.strip()]
    if not items:
        return pl.Series("reason", reasons, pl.String)
    if settings.ngram:
        _shared_ngrams(problems, items, settings.ngram, reasons)
    if settings.containment_chars:
        _contained(problems, items, settings.containment_chars, reasons)
    return pl.Series("reason", reasons, pl.String)


def word_ngrams(text: str, n: int) -> list[str]:
    """The n-grams of a text's words, in order, as open-r1 makes them.

    >>> word_ngrams("Find  the SUM of", 3)
    ['find the sum', 'the sum of']
    """
    parts = words(text).split()
    return [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def _shared_ngrams(problems: pl.Series, items: list[tuple[str, int, str]], n: int, reasons: list[str | None]) -> None:
    """Fill in ``reasons`` for problems that share an n-gram with an item."""
    ngrams: dict[str, tuple[str, int]] = {}
    for name, index, text in items:
        for ngram in word_ngrams(text, n):
            ngrams.setdefault(ngram, (name, index))
    wanted = np.unique(ngram_hashes(pl.Series([words(text) for _, _, text in items]), n)[0])
    table = np.zeros(1 << _TABLE_BITS, bool)  # by a hash's first bits: almost every n-gram is ruled out by one look
    table[wanted >> np.uint64(64 - _TABLE_BITS)] = True
    for start in range(0, len(problems), _CHUNK):
        hashes, offsets = ngram_hashes(pl.Series([words(text) for text in problems[start : start + _CHUNK]]), n)
        likely = np.flatnonzero(table[hashes >> np.uint64(64 - _TABLE_BITS)])
        hits = likely[np.isin(hashes[likely], wanted)]
        for row in np.unique(np.searchsorted(offsets, hits, side="right") - 1) + start:  # the strings decide, not their hashes
            shared = next((ngram for ngram in word_ngrams(problems[int(row)], n) if ngram in ngrams), None)
            if shared is not None:
                name, index = ngrams[shared]
                reasons[row] = f'{name}: item {index}: shares "{shared}"'


def _contained(problems: pl.Series, items: list[tuple[str, int, str]], chars: int, reasons: list[str | None]) -> None:
    """Fill in ``reasons`` for problems that contain an item, are contained in one, or equal a short one."""
    plain_items = pl.Series([text for _, _, text in items]).to_frame("t").select(letters(pl.col("t")))["t"].to_list()
    plain = problems.to_frame("t").lazy().select(letters(pl.col("t"))).collect()["t"]
    equal = {text: item for text, item in zip(reversed(plain_items), reversed(items), strict=True) if text}
    long = [(text, item) for text, item in zip(plain_items, items, strict=True) if len(text) >= chars]
    patterns = pl.Series([text for text, _ in long], dtype=pl.String)
    windows = pl.Series(sorted({text[i : i + chars] for text, _ in long for i in range(len(text) - chars + 1)}), dtype=pl.String)
    candidates = plain.to_frame("t").select(
        (
            pl.col("t").is_in(pl.Series(sorted(equal), dtype=pl.String).implode())
            | pl.col("t").str.contains_any(pl.lit(patterns).implode())
            | (pl.col("t").str.len_chars() >= chars) & pl.col("t").str.slice(0, chars).is_in(windows.implode())
        ).arg_true()
    )["t"]
    for row in candidates:
        if reasons[row] is not None:
            continue
        text = plain[row]
        name, index, found = None, 0, ""
        if text in equal:
            (name, index, _), found = equal[text], "equal to it"
        else:
            for other, (benchmark, number, _) in long:
                if other in text or (len(text) >= chars and text in other):
                    name, index, found = benchmark, number, "contains it" if other in text else "part of it"
                    break
        if name:
            reasons[row] = f"{name}: item {index}: {found}"
