"""The formulas: their documented examples, and what must hold for any text."""

import doctest
import importlib.util
import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openr1_repro.rewards import functions

from .conftest import completions

OPTIONAL = {"soft_overlong_punishment": "trl"}  # whose example needs a package of the train environment
NAMES = [name for name, value in vars(functions).items() if getattr(value, "__module__", "") == functions.__name__]
REWARDS = [name for name in NAMES if not name.startswith("_")]


@pytest.mark.parametrize("name", REWARDS)
def test_the_documented_example_is_true(name):
    if name in OPTIONAL and importlib.util.find_spec(OPTIONAL[name]) is None:
        pytest.skip(f"{OPTIONAL[name]} is not installed here")
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(functions, name), name, globs=vars(functions).copy())
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


PIECES = [
    "<think>\n",
    "\n</think>\n",
    "<answer>\n",
    "\n</answer>",
    "\n",
    "x",
    "```python",
    "```",
    " ",
    "</think>",
    "<think>",
]
STEPS = ["Step 1:", "Step 22:", "3.", "\n-", "\n*", "First,", "Next,", "word", "word word ", "第一"]
tagged_texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
texts = st.one_of(
    tagged_texts,
    st.text(max_size=80),
    st.lists(st.sampled_from(STEPS), max_size=9).map("".join),
)  # fmt: skip
FORMAT = r"^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$"
CODE_FORMAT = r"^<think>\n.*?\n</think>\n<answer>\n.*?```python.*?```.*?\n</answer>$"


@given(tagged_texts)
@settings(max_examples=2000, deadline=None)
def test_the_linear_search_is_the_regular_expression(text):
    for whole, flags in ((True, re.DOTALL), (False, re.DOTALL | re.MULTILINE)):
        assert functions.format(completions(text), whole) == [float(bool(re.match(FORMAT, text, flags)))]
        expected = [float(bool(re.match(CODE_FORMAT, text, flags)))]
        assert functions.code_format(completions(text), ["python"], whole) == expected


def test_format_on_every_order_of_its_parts():
    parts = ["<think>\n", "a", "\n</think>\n", "<answer>\n", "b", "\n</answer>"]
    assert functions.format(completions("".join(parts))) == [1.0]
    for skipped in range(6):
        text = "".join(part for index, part in enumerate(parts) if index != skipped)
        expected = float(skipped in (1, 4))  # thought and answer may be empty, the tags may not
        assert functions.format(completions(text)) == [expected]
    assert functions.format(completions("".join(parts) + "\nmore")) == [0.0]
    assert functions.format(completions("".join(parts) + "\nmore"), whole_text=False) == [1.0]


BOUNDED = {
    "format": (functions.format, 0.0, 1.0),
    "tag_count": (functions.tag_count, 0.0, 1.0),
    "reasoning_steps": (functions.reasoning_steps, 0.0, 1.0),
    "repetition_penalty": (functions.repetition_penalty, -1.0, 0.0),
    "code_format": (lambda c: functions.code_format(c, ["python"] * len(c)), 0.0, 1.0),
}


@pytest.mark.parametrize("name", BOUNDED)
@given(batch=st.lists(texts, min_size=1, max_size=6), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_rewards_of_a_text_are_bounded_deterministic_and_follow_it(name, batch, seed):
    function, low, high = BOUNDED[name]
    rewards = function(completions(*batch))
    assert all(low <= reward <= high for reward in rewards)
    assert rewards == function(completions(*batch))
    order = random.Random(seed).sample(range(len(batch)), len(batch))
    assert function(completions(*[batch[i] for i in order])) == [rewards[i] for i in order]
    assert [function(completions(text))[0] for text in batch] == rewards  # no text sees another


judged = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from([True, False, None]), st.sampled_from("ab")), min_size=1, max_size=8
)


@given(judged, st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_length_and_cosine_are_bounded_and_follow_their_completion(batch, seed):
    def length(items):
        return functions.length(
            completions(*["x" * n for n, _, _ in items]), [v for _, v, _ in items], [g for *_, g in items]
        )

    def cosine(items):
        return functions.cosine([n for n, _, _ in items], [v for _, v, _ in items], max_len=200)

    order = random.Random(seed).sample(range(len(batch)), len(batch))
    for function in (length, cosine):
        rewards = function(batch)
        assert function([batch[i] for i in order]) == [rewards[i] for i in order]
        for reward, (_, verdict, _) in zip(rewards, batch, strict=True):
            assert (reward is None) == (verdict is None)
            if function is length and verdict is not None:
                assert -0.5 <= reward <= (0.5 if verdict else 0.0)
            elif verdict is not None:
                assert (0.5 <= reward <= 1.0) if verdict else (-0.5 <= reward <= 0.0)


def test_length_compares_within_a_prompt():
    texts = completions("x" * 10, "x" * 20, "x" * 100, "x" * 300)
    right = [True] * 4
    assert functions.length(texts, right, ["a", "a", "b", "b"]) == [0.5, -0.5, 0.5, -0.5]
    assert functions.length(texts, right) != functions.length(texts, right, ["a", "a", "b", "b"])
    assert functions.length(texts[:1] * 3, right[:3], ["a"] * 3) == [0.0] * 3


@pytest.mark.parametrize(("size", "expected"), [(0, 1.0), (250, 0.5 + 0.25 * (1 + math.cos(math.pi / 4))), (1000, 0.5)])
def test_cosine_by_hand(size, expected):
    assert functions.cosine([size], [True]) == [pytest.approx(expected)]


def test_repetition_in_chinese():
    pytest.importorskip("jieba")
    assert functions.repetition_penalty(completions("这个这个这个这个这个"), 2, -1.0, "zh") == [-0.75]
