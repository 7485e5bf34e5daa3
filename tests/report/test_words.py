import math

from hypothesis import given
from hypothesis import strategies as st
from openr1_repro.report.words import clipped, number, percent, points, pvalue, shown


def test_numbers_read_as_people_write_them():
    assert percent(0.4567) == "45.7\u202f%"
    assert [points(v) for v in (0.031, -0.031, 0.0, 0.0001)] == ["+3.1", "−3.1", "0.0", "+0.0"]
    assert [pvalue(v) for v in (0.0001, 0.0123, 0.5)] == ["< 0.001", "0.012", "0.50"]
    assert [number(v) for v in (None, math.nan, -12345.6, 0.000123)] == ["–", "–", "−12,346", "0.000123"]


@given(st.text())
def test_shown_text_has_no_control_and_no_direction_characters(text):
    result = shown(text)
    assert not [c for c in result if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0]
    assert not set(result) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    result.encode("utf-8")


@given(st.text(alphabet="abc \n\tü中", max_size=50))
def test_shown_leaves_ordinary_text_alone(text):
    assert shown(text) == text


@given(st.text(max_size=300), st.integers(10, 100))
def test_clipped_keeps_both_ends_and_counts_the_rest(text, limit):
    c = clipped(text, limit)
    assert text.startswith(c["head"])
    assert text.endswith(c["tail"])
    assert len(c["head"]) + len(c["tail"]) + c["left_out"] == len(text)


def test_broken_unicode_is_replaced():
    assert shown("a\ud800b") == "a?b"
