"""The short ways of `verify` change no verdict: each against math-verify's own long way."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_verify import grader, parse, parser
from math_verify import verify as math_verify
from math_verify.parser import extract_target_from_pred, get_extraction_regexes
from openr1_repro import verify
from sympy import srepr

numbers = st.one_of(
    st.integers(-(10**15), 10**15).map(str),
    st.integers(-999, 999).map(str),
    st.from_regex(r"-?[0-9]{1,16}", fullmatch=True),
    st.from_regex(r"-?[0-9]{0,8}\.[0-9]{1,8}", fullmatch=True),
    st.from_regex(r"-?\\frac\{-?[0-9]{1,5}\}\{-?[0-9]{1,5}\}", fullmatch=True),
    st.from_regex(r"-?\\frac\{-?[1-9]\}\{[1-9]\}", fullmatch=True),
)


@given(numbers)
@settings(max_examples=600, deadline=None)
def test_a_number_is_what_the_parser_makes_of_it(latex):
    found = verify.exact(latex)
    if found is not None:
        parsed = verify._parse_latex(latex)
        assert srepr(found) == srepr(parsed)
        assert type(found) is type(parsed)


@pytest.mark.parametrize(
    "latex", ["", "-", "1,000", r"\frac{1}{0}", r"\frac12", "1 2", "x", "1e5", "٣", "1.", "--1", "5%"]
)
def test_what_is_not_plainly_a_number_is_left_to_the_parser(latex):
    assert verify.exact(latex) is None


TOKENS = ["$", "$$", r"\[", r"\]", r"\(", r"\)", " [", "[", "]", "\n", " ", "\\", r"\boxed{", "}", "{", "5", "x", r"\$", "%",
          "percent", ",", "and", " or ", "answer", "final answer is ", "Answer:", ". I hope", "1"]  # fmt: skip
texts = st.lists(st.sampled_from(TOKENS), max_size=30).map("".join)


def groups(match):
    return match and (match.span(), {name: value for name, value in match.groupdict().items() if value})


@given(texts)
@settings(max_examples=3000, deadline=None)
def test_boxes_in_environments_are_found_where_the_expression_finds_them(text):
    expected = [groups(match) for match in verify._BOXED_ENVIRONMENT.finditer(text)]
    assert [groups(match) for match in verify._in_environment(verify._BOXED_ENVIRONMENT, text)] == expected


def long_way(gold, text):
    """math-verify and latex2sympy2 as they are, without any of `verify`'s short ways."""
    with pytest.MonkeyPatch.context() as original:
        original.setattr(parser, "parse_latex_cached", verify._parse_latex)
        original.setattr(verify.latex2sympy2._Latex2Sympy, "create_parser", verify._create_parser)
        original.setattr(grader, "sympy_symbolic_eq", verify._symbolic_eq)
        gold_parsed = parse(gold, extraction_mode="first_match", parsing_timeout=60)
        if not gold_parsed:
            return None
        patterns = get_extraction_regexes([verify.ANSWER["accuracy"]])
        answer = extract_target_from_pred(text, patterns, fallback_mode="first_match", extraction_mode="first_match")
        return math_verify(gold_parsed, answer, timeout_seconds=60)


atoms = st.sampled_from(
    ["x", "y", "1", "2", "3", "10", "0.5", r"\pi", "e", "n", r"\frac{1}{2}", r"\sqrt{2}", r"\infty"]
)
latexes = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", r"\cdot ", "", "/", ",", "=", "<", r"\le "]), inner).map("".join),
        st.tuples(st.sampled_from([r"\frac", r"\binom"]), inner, inner).map(lambda t: f"{t[0]}{{{t[1]}}}{{{t[2]}}}"),
        st.tuples(
            st.sampled_from([r"\sqrt", r"\sin ", r"\log", r"\left(", "(", "[", r"\{", "|", "-", r"\text"]), inner
        ).map(
            lambda t: (
                t[0] + f"{{{t[1]}}}" + {r"\left(": r"\right)", "(": ")", "[": "]", r"\{": r"\}", "|": "|"}.get(t[0], "")
            )
        ),
        st.tuples(inner, st.sampled_from(["^", "_"]), inner).map(lambda t: f"{{{t[0]}}}{t[1]}{{{t[2]}}}"),
    ),
    max_leaves=6,
)


def tree(latex, short):
    with pytest.MonkeyPatch.context() as original:
        if not short:
            original.setattr(verify.latex2sympy2._Latex2Sympy, "create_parser", verify._create_parser)
        try:
            return srepr(verify._parse_latex(latex))
        except Exception as error:
            return f"{type(error).__name__}: {error}"


@given(latexes)
@settings(max_examples=200, deadline=None)
def test_the_fast_parser_finds_the_same_tree(latex):
    assert tree(latex, short=True) == tree(latex, short=False)


@given(latexes, latexes)
@settings(max_examples=100, deadline=None)
def test_what_differs_at_a_point_is_not_simplified_to_nothing(left, right):
    try:
        a, b = verify._parse_latex(left), verify._parse_latex(right)
        symbols = sorted(a.free_symbols | b.free_symbols, key=str)
        verify.value(a, symbols), verify.value(b, symbols)
    except Exception:
        return
    with pytest.MonkeyPatch.context() as spy:
        asked = []
        spy.setattr(verify, "_symbolic_eq", lambda *pair: asked.append(pair))
        verify.symbolic_eq(a, b)
    if not asked:
        limited = verify.cpu_timeout(20)(verify._symbolic_eq)
        with contextlib.suppress(verify.TimeoutException):
            assert limited(a, b) is False


answers = st.one_of(numbers, st.sampled_from([r"\frac12", "x", "1,2", r"50\%", "0.5", "2", r"\sqrt2", "", "{", "}"]))


@given(st.lists(st.tuples(answers, answers, texts), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_verdict_is_that_of_parse_and_verify(cases):
    verifier = verify.Verifier(seconds=60)
    for gold, answer, around in cases * 2:  # the second time from what was kept
        for text in (f"{around} $\\boxed{{{answer}}}$", f"\\boxed{{{gold}}}{around}"):
            try:
                expected = long_way(f"${gold}$", text)
            except Exception:
                expected = False  # math-verify's parse() makes no answer of any failure
            assert verifier.verdict(f"${gold}$", text, "accuracy") == expected


def test_the_same_answer_is_compared_once(monkeypatch):
    verifier = verify.Verifier(seconds=60)
    compared = []
    monkeypatch.setattr(verify, "verify", lambda *args, **kwargs: compared.append(args) or True)
    for thought in range(16):
        assert verifier.verdict("$7$", f"thought {thought}: $\\boxed{{7}}$", "accuracy")
    assert len(compared) == 1
    assert len(verifier.golds) == 1
