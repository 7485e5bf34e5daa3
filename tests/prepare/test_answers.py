"""Answers: the shortcut agrees with math-verify, hostile answers end, verdicts are kept."""

import importlib
import logging
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openr1_repro.prepare import answers
from openr1_repro.prepare.answers import answer_form, canonical, canonical_answers, canonical_plain, in_workers, same

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


def test_verdicts_are_kept_by_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["5", "\\sqrt{2}", "\\approx 3"]
    first = canonical_answers([*wanted, "5"], 10.0, tmp_path)
    assert first == {"5": "5", "\\sqrt{2}": "sqrt(2)", "\\approx 3": None}
    (file,) = tmp_path.iterdir()
    assert "0.9" in file.name

    def refuse(function: object, items: list[str], seconds: float) -> list[None]:
        assert not items, "asked again"
        return []

    monkeypatch.setattr(answers, "in_workers", refuse)
    assert canonical_answers(wanted, 10.0, tmp_path) == first
