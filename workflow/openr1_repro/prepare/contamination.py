"""Does a problem occur in a benchmark? Word n-grams as in s1 (arXiv 2501.19393) and open-r1, and containment."""

import numpy as np
import polars as pl

from .ngrams import ngram_hashes
from .settings import Contamination
from .text import letters, normal_form, words

_CHUNK = 50_000
_TABLE_BITS = 24

Item = tuple[str, int, str]  # benchmark, row, problem


def contaminated(rows: pl.DataFrame, benchmarks: dict[str, list[str]], settings: Contamination) -> pl.Series:
    """Which problems occur in a benchmark, and in which of its items.

    Args:
        rows: columns problem and normal (its `normal_form`, for ``containment_chars`` only), none null.
        benchmarks: the problems of each.

    Returns:
        Strings, one a row: ``aime24: item 3: shares "the number of …"``; null: clean.
    """
    reasons: list[str | None] = [None] * rows.height
    items = [(name, i, text) for name, texts in benchmarks.items() for i, text in enumerate(texts) if text.strip()]
    if items and settings.ngram:
        _shares_ngram(rows["problem"], items, settings.ngram, reasons)
    if items and settings.containment_chars:
        _contains(rows["normal"], items, settings.containment_chars, reasons)
    return pl.Series("reason", reasons, pl.String)


def word_ngrams(text: str, n: int) -> list[str]:
    """The n-grams of a text's words, in order, as open-r1 makes them.

    >>> word_ngrams("Find  the SUM of", 3)
    ['find the sum', 'the sum of']
    """
    parts = words(text).split()
    return [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def _shares_ngram(problems: pl.Series, items: list[Item], n: int, reasons: list[str | None]) -> None:
    """Fill in ``reasons`` where a problem shares an n-gram with an item. Hashes find the few rows, strings decide."""
    owner: dict[str, Item] = {}
    for item in items:
        for ngram in word_ngrams(item[2], n):
            owner.setdefault(ngram, item)
    wanted = np.unique(ngram_hashes(pl.Series([words(text) for _, _, text in items]), n)[0])
    table = np.zeros(1 << _TABLE_BITS, bool)  # by a hash's first bits: one look rules out almost every n-gram
    table[wanted >> np.uint64(64 - _TABLE_BITS)] = True
    for start in range(0, len(problems), _CHUNK):
        hashes, offsets = ngram_hashes(pl.Series([words(text) for text in problems[start : start + _CHUNK]]), n)
        likely = np.flatnonzero(table[hashes >> np.uint64(64 - _TABLE_BITS)])
        hits = likely[np.isin(hashes[likely], wanted)]
        for row in (np.unique(np.searchsorted(offsets, hits, side="right") - 1) + start).tolist():
            for ngram in word_ngrams(problems[row], n):
                if ngram in owner:
                    benchmark, number, _ = owner[ngram]
                    reasons[row] = f'{benchmark}: item {number}: shares "{ngram}"'
                    break


def _contains(normal: pl.Series, items: list[Item], chars: int, reasons: list[str | None]) -> None:
    """Fill in ``reasons`` where a problem equals an item, contains one, or is part of one."""
    known = pl.DataFrame({"normal": normal_form_of([text for _, _, text in items])}).with_columns(
        letters(pl.col("normal")).alias("letters")
    )
    equal = {text: item for text, item in zip(known["normal"], items, strict=True) if text}
    long = [(text, item) for text, item in zip(known["letters"], items, strict=True) if len(text) >= chars]
    starts = {text[i : i + chars] for text, _ in long for i in range(len(text) - chars + 1)}
    for start in range(0, len(normal), _CHUNK):
        rows = (
            normal[start : start + _CHUNK].to_frame("normal").with_columns(letters(pl.col("normal")).alias("letters"))
        )
        plain = pl.col("letters")
        found = pl.col("normal").is_in(pl.Series(sorted(equal), dtype=pl.String).implode())
        if long:
            found |= plain.str.contains_any(pl.lit(pl.Series([text for text, _ in long])).implode())
            found |= plain.str.slice(0, chars).is_in(pl.Series(sorted(starts)).implode())
        for row in rows.select(found.arg_true()).to_series():
            if reasons[start + row] is None:
                reasons[start + row] = _containment(rows["normal"][row], rows["letters"][row], equal, long)


def _containment(normal: str, text: str, equal: dict[str, Item], long: list[tuple[str, Item]]) -> str | None:
    if normal in equal:
        benchmark, number, _ = equal[normal]
        return f"{benchmark}: item {number}: equal to it"
    for other, (benchmark, number, _) in long:
        if other in text:
            return f"{benchmark}: item {number}: contains it"
        if text in other:  # as long as the shortest window, or it were no candidate
            return f"{benchmark}: item {number}: part of it"
    return None


def normal_form_of(texts: list[str]) -> pl.Series:
    """`normal_form` of a few texts."""
    return pl.Series("t", texts, pl.String).to_frame().select(normal_form(pl.col("t")))["t"]
