"""Contamination: the same verdicts as open-r1's script on the same rows, and what containment adds."""

import os
import random
import runpy
import sys
import types
from pathlib import Path

import polars as pl
import pytest
from openr1_repro.prepare.contamination import Benchmarks, word_ngrams
from openr1_repro.prepare.settings import Contamination
from openr1_repro.prepare.text import normal_form

NGRAMS_ONLY = Contamination(containment_chars=None)


def verdicts(problems: list[str], benchmarks: dict[str, list[str]], settings: Contamination) -> list[str | None]:
    rows = pl.DataFrame({"problem": problems}).with_columns(normal_form(pl.col("problem")).alias("normal"))
    return Benchmarks(benchmarks, settings).find(rows).to_list()


def awkward_rows(count: int) -> tuple[list[str], dict[str, list[str]]]:
    """Problems of few words, so that they share n-grams often, with the white space and letters that normalisation meets."""
    rng = random.Random(5)
    spaces = [" "] * 12 + ["  ", "\n", "\t", "\u00a0", "\u2003", "\x1c", "\x1f", "\x85", "\u200b", "\u3000"]
    vocabulary = [
        "Find",
        "find",
        "the",
        "SUM",
        "of",
        "İstanbul",
        "straße",
        "ΣΑΣ",
        "ǅ",
        "ﬁnd",
        "$x^2$",
        "x",
        "3",
        "two",
        "\ud7a3",
        "数",
    ]

    def text(low: int, high: int) -> str:
        return "".join(rng.choice(vocabulary) + rng.choice(spaces) for _ in range(rng.randint(low, high)))

    benchmarks = {
        name: [text(0, 25) for _ in range(40)] for name in ("aime_2024", "aime_2025", "math_500", "gpqa", "lcb")
    }
    problems = [text(0, 30) for _ in range(count // 2)]
    for _ in range(count - len(problems)):
        parts = rng.choice(rng.choice(list(benchmarks.values()))).split()
        start = rng.randrange(len(parts) + 1)
        problems.append(" ".join([text(0, 9), *parts[start : start + rng.randint(6, 10)], text(0, 9)]).swapcase())
    return problems, benchmarks


def test_hashes_decide_as_strings_do() -> None:
    problems, benchmarks = awkward_rows(4_000)
    for n in (1, 3, 8):
        known = {ngram for texts in benchmarks.values() for text in texts for ngram in word_ngrams(text, n)}
        expected = [any(ngram in known for ngram in word_ngrams(problem, n)) for problem in problems]
        assert sum(expected) > 100
        found = verdicts(problems, benchmarks, NGRAMS_ONLY.model_copy(update={"ngram": n}))
        assert [reason is not None for reason in found] == expected


@pytest.mark.skipif("OPEN_R1_CHECKOUT" not in os.environ, reason="OPEN_R1_CHECKOUT names no checkout of open-r1")
def test_verdicts_equal_open_r1s(monkeypatch: pytest.MonkeyPatch) -> None:
    """open-r1's functions as they stand in its script, applied as its loop applies them."""
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=lambda x: x))
    theirs = runpy.run_path(str(Path(os.environ["OPEN_R1_CHECKOUT"], "scripts", "decontaminate.py")))
    problems, benchmarks = awkward_rows(4_000)
    lookups = [theirs["build_ngram_lookup"](texts) for texts in benchmarks.values()]
    expected = []
    for problem in problems:
        ngrams = theirs["build_ngram_single"](problem)
        expected.append(any(any(ngram in lookup for ngram in ngrams) for lookup in lookups))
    assert 100 < sum(expected) < 3_900
    assert [reason is not None for reason in verdicts(problems, benchmarks, NGRAMS_ONLY)] == expected


def test_names_the_item() -> None:
    benchmarks = {
        "a": ["one two three", "x"],
        "b": ["nothing", "", "Find the least positive integer that is ten more."],
    }
    found = verdicts(["Hence find THE least positive integer that is ten times"], benchmarks, Contamination())
    assert found == ['b: item 2: shares "find the least positive integer that is ten"']


def test_containment_finds_what_ngrams_cannot() -> None:
    long = "Evaluate $i^{6}+i^{16}+i^{-26}$ where $i$ is the imaginary unit and simplify"
    benchmarks = {"b": ["Compute $\\sin 60^\\circ$.", long]}
    problems = [
        "Compute \\(\\sin 60^{\\circ}\\)", "Compute $\\sin 60^\\circ$ and add 1.", "Hint: evaluate $i^6 + i^{16} + i^{-26}$where$i$is the imaginary unit,and simplify!",
        "Evaluate $i^6+i^{16}+i^{-26}$ where $i$ is the imaginary unit",
    ]  # fmt: skip
    assert verdicts(problems, benchmarks, Contamination()) == [
        "b: item 0: equal to it", None, "b: item 1: contains it", "b: item 1: part of it",
    ]  # fmt: skip
    assert verdicts(problems[:3], benchmarks, NGRAMS_ONLY) == [None, None, None]


def test_no_benchmark_finds_nothing() -> None:
    assert verdicts(["a b c d e f g h i"], {}, Contamination()) == [None]
    assert verdicts(["a b c d e f g h i"], {"b": ["", "  "]}, Contamination()) == [None]
