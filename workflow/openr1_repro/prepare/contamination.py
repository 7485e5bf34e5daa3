"""Does a problem occur in a benchmark? Word n-grams as in s1 (arXiv 2501.19393) and open-r1, and containment."""

import numpy as np
import polars as pl

from .ngrams import ngram_hashes
from .settings import Contamination
from .text import letters, normal_form, words

_TABLE_BITS = 24

Item = tuple[str, int, str]  # benchmark, row, problem


class Benchmarks:
    """Benchmark problems, indexed for looking other problems up in them."""

    def __init__(self, problems: dict[str, list[str]], settings: Contamination) -> None:
        """Index the problems of each benchmark."""
        items = [(name, i, text) for name, texts in problems.items() for i, text in enumerate(texts) if text.strip()]
        self.lookups: list[_Ngrams | _Containment] = []
        if items and settings.ngram:
            self.lookups.append(_Ngrams(items, settings.ngram))
        if items and settings.containment_chars:
            self.lookups.append(_Containment(items, settings.containment_chars))

    def find(self, rows: pl.DataFrame) -> pl.Series:
        """Which problems occur in a benchmark, and in which of its items.

        Args:
            rows: columns problem and normal (its `normal_form`), none null; `TEXT_AT_ONCE` or so.

        Returns:
            Strings, one a row: ``aime24: item 3: shares "the number of …"``; null: clean.
        """
        reasons: list[str | None] = [None] * rows.height
        for lookup in self.lookups:
            lookup.find(rows, reasons)
        return pl.Series("contamination", reasons, pl.String)


def word_ngrams(text: str, n: int) -> list[str]:
    """The n-grams of a text's words, in order, as open-r1 makes them.

    >>> word_ngrams("Find  the SUM of", 3)
    ['find the sum', 'the sum of']
    """
    parts = words(text).split()
    return [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]


class _Ngrams:
    """Finds a shared n-gram of words: hashes find the few rows, strings decide."""

    def __init__(self, items: list[Item], n: int) -> None:
        self.n = n
        self.owner: dict[str, Item] = {}
        for item in items:
            for ngram in word_ngrams(item[2], n):
                self.owner.setdefault(ngram, item)
        self.wanted = np.unique(ngram_hashes(pl.Series([words(text) for _, _, text in items]), n)[0])
        self.table = np.zeros(1 << _TABLE_BITS, bool)  # by a hash's first bits: one look rules out almost every n-gram
        self.table[self.wanted >> np.uint64(64 - _TABLE_BITS)] = True

    def find(self, rows: pl.DataFrame, reasons: list[str | None]) -> None:
        problems = rows["problem"]
        hashes, offsets = ngram_hashes(pl.Series([words(text) for text in problems], dtype=pl.String), self.n)
        likely = np.flatnonzero(self.table[hashes >> np.uint64(64 - _TABLE_BITS)])
        hits = likely[np.isin(hashes[likely], self.wanted)]
        for row in np.unique(np.searchsorted(offsets, hits, side="right") - 1).tolist():
            for ngram in word_ngrams(problems[row], self.n):
                if ngram in self.owner:
                    benchmark, number, _ = self.owner[ngram]
                    reasons[row] = f'{benchmark}: item {number}: shares "{ngram}"'
                    break


class _Containment:
    """Finds a problem that equals an item, contains one, or is part of one."""

    def __init__(self, items: list[Item], chars: int) -> None:
        self.chars = chars
        known = pl.DataFrame({"normal": normal_form_of([text for _, _, text in items])}).with_columns(
            letters(pl.col("normal")).alias("letters")
        )
        self.equal = {text: item for text, item in zip(known["normal"], items, strict=True) if text}
        self.long = [(text, item) for text, item in zip(known["letters"], items, strict=True) if len(text) >= chars]
        starts = {text[i : i + chars] for text, _ in self.long for i in range(len(text) - chars + 1)}
        plain = pl.col("letters")
        self.likely = pl.col("normal").is_in(pl.Series(sorted(self.equal), dtype=pl.String).implode())
        if self.long:
            self.likely |= plain.str.contains_any(pl.lit(pl.Series([text for text, _ in self.long])).implode())
            self.likely |= plain.str.slice(0, chars).is_in(pl.Series(sorted(starts)).implode())

    def find(self, rows: pl.DataFrame, reasons: list[str | None]) -> None:
        rows = rows.select("normal", letters(pl.col("normal")).alias("letters"))
        for row in rows.select(self.likely.arg_true()).to_series():
            if reasons[row] is None:
                reasons[row] = self._reason(rows["normal"][row], rows["letters"][row])

    def _reason(self, normal: str, text: str) -> str | None:
        if normal in self.equal:
            benchmark, number, _ = self.equal[normal]
            return f"{benchmark}: item {number}: equal to it"
        for other, (benchmark, number, _) in self.long:
            if other in text:
                return f"{benchmark}: item {number}: contains it"
            if text in other:  # as long as the shortest window, or it were no candidate
                return f"{benchmark}: item {number}: part of it"
        return None


def normal_form_of(texts: list[str]) -> pl.Series:
    """`normal_form` of a few texts."""
    return pl.Series("t", texts, pl.String).to_frame().select(normal_form(pl.col("t")))["t"]
