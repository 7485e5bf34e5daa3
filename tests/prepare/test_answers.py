"""Answers: the shortcut agrees with math-verify, hostile answers end, verdicts are kept."""

import importlib
import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openr1_repro.prepare.answers import answer_form, canonical, canonical_plain, in_workers, same

from .conftest import World, row

logging.getLogger("math_verify").setLevel(logging.ERROR)
DIGITS = st.integers(0, 10**9 - 1).map(str)
PLAIN = st.one_of(
    st.from_regex(r"-?[0-9]{1,15}", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,15}\.[0-9]{1,10}", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,9}/[1-9][0-9]{0,8}", fullmatch=True),
    st.from_regex(r"-?\\frac\{[0-9]{1,9}\}\{[1-9][0-9]{0,8}\}", fullmatch=True),
)


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_math_verify_accepts_every_plain_answer(answer: str) -> None:
    assert canonical_plain(answer) is not None
    assert canonical(answer) is not None


@settings(max_examples=80, deadline=None)
@given(PLAIN, PLAIN)
def test_equal_plain_answers_are_equal_to_math_verify(one: str, other: str) -> None:
    if canonical_plain(one) == canonical_plain(other):
        assert same((one, other))
    assert same((one, canonical_plain(one)))


@pytest.mark.parametrize(
    "answer", ["x+1", "", "1,000", "12 cm", "1/0", "\\frac{1}{0}", "1.", ".5", "٣", "1\n", "1" * 16]
)
def test_the_shortcut_takes_nothing_else(answer: str) -> None:
    assert canonical_plain(answer) is None


def test_forms_of_one_answer() -> None:
    forms = ["$\\dfrac{1}{2}$", "\\frac{1}{2}", " \\tfrac{1}{2}.", "\\left\\frac{1}{2}\\right"]
    assert pl.DataFrame({"a": forms}).select(answer_form(pl.col("a")).n_unique()).item() == 1
    assert same(("\\sqrt{8}", "2\\sqrt{2}")) and not same(("\\sqrt{8}", "3"))


HOSTILE = """
def hostile(answer):
    if answer == "loop":
        while True:
            pass
    if answer == "power":  # one operation, deaf to Python's signal handlers
        return str(len(str(7 ** (10**9))))
    if answer == "memory":
        return str(len(bytearray(1 << 40)))
    if answer == "error":
        raise ValueError(answer)
    return answer.upper()
"""


def test_one_hostile_answer_costs_its_own_verdict_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_answers.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(tmp_path)
    hostile = importlib.import_module("hostile_answers").hostile
    items = [f"a{i}" for i in range(20)] + ["loop", "power", "memory", "error"] + [f"b{i}" for i in range(20)]
    assert in_workers(hostile, items, 0.5) == [
        None if item in ("loop", "power", "memory", "error") else item.upper() for item in items
    ]


TERM = st.one_of(
    PLAIN,
    st.sampled_from(
        [
            "x",
            "n",
            "\\pi",
            "\\sqrt{2}",
            "\\sqrt[3]{5}",
            "\\infty",
            "\\emptyset",
            "25\\%",
            "60^\\circ",
            "\\text{even}",
            "A",
        ]
    ),
    st.integers(1, 99).map(lambda n: f"2^{{{n}}}"),
    st.integers(1, 99).map(lambda n: f"{n}\\mathrm{{~cm}}"),
)
SHAPES = [
    "{}+{}",
    "{}-{}",
    "{}{}",
    "{}\\cdot {}",
    "\\frac{{{}}}{{{}}}",
    "({},{})",
    "[{},{})",
    "\\{{{},{}\\}}",
    "x={}, y={}",
    "{}<x<{}",
    "{}\\text{{ or }}{}",
]
ANSWER = st.builds(lambda shape, *terms: shape.format(*terms), st.sampled_from(SHAPES), TERM, TERM)


@settings(max_examples=3, deadline=None)
@given(st.lists(ANSWER, min_size=150, max_size=150, unique=True))
def test_the_workers_short_ways_change_no_reading(answers: list[str]) -> None:
    """`canonical` here is math-verify untouched; the workers' is sped up."""
    expected = []
    for answer in answers:
        try:
            expected.append(canonical(answer))
        except Exception:
            expected.append(None)
    assert in_workers(canonical, answers, 10.0) == expected


def test_readings_are_kept(world: World, tmp_path: Path) -> None:
    """From run to run, whatever the other settings; for one time limit, so that what ran before changes nothing."""
    cache = tmp_path / "cache"
    golds = ["5", "\\sqrt{2}", "\\approx 3", "(1,2)", "\\frac{\\pi}{2}", "0.5"]
    world.dataset([row(f"Count {n} sheep.", gold) for n, gold in enumerate(golds)])

    def run(*arguments: str, **prepare: Any) -> tuple[str, dict[str, bytes]]:
        output = tmp_path / "out"
        done = world.command(output, *arguments, **prepare)
        assert done.returncode == 0, done.stderr
        return done.stdout, {file.name: file.read_bytes() for file in output.iterdir()}

    def said(count: int) -> str:
        return f"answers: 6 distinct, {count} for math-verify to read"

    log, without = run()
    assert said(4) in log and "answer parses: 6 -> 5" in log
    log, first = run("--cache", str(cache))
    assert said(4) in log and first == without
    log, again = run("--cache", str(cache))
    assert said(0) in log and again == without
    log, _ = run("--cache", str(cache), seed=7, max_prompt_tokens=None)
    assert said(0) in log
    log, _ = run("--cache", str(cache), answer={"timeout": 11})
    assert said(4) in log
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    log, damaged = run("--cache", str(cache))
    assert said(4) in log and damaged == without
