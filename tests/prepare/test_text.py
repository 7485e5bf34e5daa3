"""Normal forms and n-grams: what holds for any text."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from openr1_repro.prepare.contamination import word_ngrams
from openr1_repro.prepare.ngrams import ngram_hashes
from openr1_repro.prepare.text import facts, letters, normal_form, words

TEXT = st.text(st.characters(codec="utf-8"), max_size=80)
WORDS = st.lists(st.sampled_from(["the", "sum", "of", "x", "Find", "3"]), max_size=14).map(" ".join)


def normal(*texts: str) -> list[str]:
    return pl.DataFrame({"t": texts}).select(normal_form(pl.col("t")))["t"].to_list()


def facts_of(text: str) -> str:
    return pl.DataFrame({"t": [text]}).select(facts(normal_form(pl.col("t"))))["t"][0]


@given(TEXT)
def test_normal_form_keeps_only_tokens(text: str) -> None:
    (form,) = normal(text)
    tokens = form.split(" ") if form else []
    assert all((token and not any(c.isspace() or c in '$\\.,;:?"' for c in token)) or "." in token for token in tokens)


@given(TEXT)
def test_normal_form_ignores_case_and_spaces_around(text: str) -> None:
    assert normal(f"x {text}".upper().lower()) == normal(f"  x {text.upper().lower()} \n")


@given(st.lists(st.integers(0, 999), min_size=1, max_size=6), st.lists(st.integers(0, 999), min_size=1, max_size=6))
def test_facts_tell_numbers_apart(one: list[int], other: list[int]) -> None:
    texts = [" and ".join(map(str, numbers)) for numbers in (one, other)]
    assert (facts_of(texts[0]) == facts_of(texts[1])) == (one == other)


@given(TEXT)
def test_letters_hold_no_space(text: str) -> None:
    plain = pl.DataFrame({"t": [text]}).select(letters(normal_form(pl.col("t"))))["t"][0]
    assert plain == "".join(plain.split())


def test_markup_is_no_difference_and_values_are() -> None:
    same = [
        "Find $x^{2} + \\dfrac{1}{2}$.", "3. find \\(x^2+\\frac{1}{2}\\)", "Problem 4: Find $x² + \\frac12$".replace("\\frac12", "\\frac{1}{2}"),
        "(5 points) Find \\[ x^2 \\, + \\, \\tfrac{1}{2} \\]", "## **Find $x^2+\\displaystyle\\frac{1}{2}$",
    ]  # fmt: skip
    assert len(set(normal(*same))) == 1
    apart = ["$x^2$", "$x^3$", "$-x^2$", "$(x+1)^2$", "$x+1^2$", "$f(2)$", "$f'(2)$", "$\\sqrt{a+b}$", "$\\sqrt{a}+b$", "$\\frac{12}{3}$",
             "$\\frac{1}{23}$", "(3) + (4)", "+ (4)", "$[0,1]$", "$(0,1)$", "1.5", "15", "$a<b$", "$a \\le b$", "$a>b$"]  # fmt: skip
    assert len(set(normal(*apart))) == len(apart)


@given(TEXT)
def test_words_are_open_r1s(text: str) -> None:
    assert words(text) == " ".join(text.lower().strip().split())


@given(TEXT | WORDS, st.integers(1, 9))
def test_word_ngrams_are_windows(text: str, n: int) -> None:
    ngrams = word_ngrams(text, n)
    parts = text.lower().split()
    assert len(ngrams) == max(0, len(parts) - n + 1)
    assert all(ngram.split() == parts[i : i + n] for i, ngram in enumerate(ngrams))


@settings(max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=8), st.integers(1, 9), st.booleans())
def test_equal_ngrams_have_equal_hashes(texts: list[str], n: int, whole: bool) -> None:
    hashes, offsets = ngram_hashes(pl.Series([words(t) for t in texts]), n, whole)
    names: dict[int, str] = {}
    for i, text in enumerate(texts):
        ngrams = word_ngrams(text, n) if text or n > 1 else [""]
        if whole and not ngrams:
            ngrams = [words(text)]
        mine = hashes[offsets[i] : offsets[i + 1]].tolist()
        assert len(mine) == len(ngrams)
        for value, ngram in zip(mine, ngrams, strict=True):
            assert names.setdefault(value, ngram) == ngram
    assert len(set(names.values())) == len(names)
