"""Our rewards against what open-r1's functions gave for the same 3,200 completions.

``open_r1_verdicts.json`` holds the facts: ``python tests/rewards/open_r1.py CHECKOUT`` writes them anew. With
OPEN_R1_CHECKOUT set, they are also made on the spot.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import corpus
from .conftest import completions

FACTS = Path(__file__).parent / "open_r1_verdicts.json"
OPEN_R1 = {"format_whole_text": False, "length_and_cosine_verdict": "open-r1", "verify_batch_timeout": 2000.0}
"""The settings that follow open-r1 where this project's defaults do not."""
NAMES = ["accuracy", "format", "tag_count", "reasoning_steps", "repetition_penalty", "cosine", "length", "code_format"]

DIFFERENT: dict[str, dict[int, str]] = {}
"""Completions, by reward and index, whose reward differs, and why: none is known."""


def ours(engine):
    pairs = corpus.pairs(corpus.PARITY)
    rewards = engine(*NAMES, **OPEN_R1)
    texts, golds = completions(*[text for _, text in pairs]), [gold for gold, _ in pairs]
    found = {}
    for function in rewards.reward_funcs:
        if function.__name__ == "length":  # compares within a prompt: each text with an empty one
            doubled = [completion for text in texts for completion in (text, completions("")[0])]
            prompts = [str(index // 2) for index in range(len(doubled))]
            golds_doubled = [gold for gold in golds for _ in range(2)]
            found["length"] = function(prompts=prompts, completions=doubled, solution=golds_doubled)[::2]
        else:
            found[function.__name__] = function(completions=texts, solution=golds)
    return found


def compare(found, facts):
    for name in NAMES:
        assert len(facts[name]) == len(found[name]) == corpus.PARITY
        different = [
            index
            for index, (our, their) in enumerate(zip(found[name], facts[name], strict=True))
            if (our is None) != (their is None) or (our is not None and abs(our - their) > 1e-12)
        ]
        print(name, "differ:", len(different), "of", corpus.PARITY)
        assert sorted(set(different) - set(DIFFERENT.get(name, {}))) == [], [
            corpus.pairs(corpus.PARITY)[i] for i in different
        ]
        assert len(different) <= 0.001 * corpus.PARITY


pytestmark = pytest.mark.timeout(3000)


@pytest.fixture(scope="module")
def found(engine):
    return ours(engine)


def test_recorded(found):
    facts = json.loads(FACTS.read_text())
    compare(found, facts)
    for values in (facts["accuracy"],):  # the corpus tries both sides of everything
        counts = {value: values.count(value) for value in (0.0, 1.0, None)}
        assert min(counts.values()) >= 20, counts


@pytest.mark.slow
@pytest.mark.skipif("OPEN_R1_CHECKOUT" not in os.environ, reason="OPEN_R1_CHECKOUT names no checkout of open-r1")
def test_live(found, tmp_path):
    command = [
        sys.executable,
        str(Path(__file__).parent / "open_r1.py"),
        os.environ["OPEN_R1_CHECKOUT"],
        str(tmp_path / "facts"),
    ]
    subprocess.run(command, check=True)
    compare(found, json.loads((tmp_path / "facts").read_text()))


def test_one_verdict_for_all_rewards(engine):
    """With the default settings, length and cosine use accuracy's verdict, and a gold without an answer gives None."""
    rewards = engine("accuracy", "length", "cosine")
    accuracy, length, cosine = rewards.reward_funcs
    rewards.statistics()
    texts = completions(r"\boxed{2}", r"\boxed{3} is what I find", r"\boxed{2}")
    columns = {"completions": texts, "solution": ["$2$", "$2$", "I do not know"], "prompts": ["a", "a", "b"]}
    assert accuracy(**columns) == [1.0, 0.0, None]
    assert length(**columns) == [0.5, -0.5, None]
    assert [reward is None for reward in cosine(**columns)] == [False, False, True]
    statistics = rewards.statistics()
    assert statistics["accuracy"]["none_rate"] == pytest.approx(1 / 3)
    assert statistics["length"]["cache_hits"] == statistics["cosine"]["cache_hits"] == 3
    assert rewards.statistics() == {}


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [(r"\frac{1}{2}", r"\boxed{0.5}", 1.0), ("x^2+1", r"\boxed{1+x^2}", 1.0), ("$3$", r"\boxed{3}", 1.0), (None, "3", None),
     (r"\boxed{7}", r"\boxed{7}", 1.0), ("A", r"\boxed{B}", 0.0), ("25\\%", r"\boxed{25\%}", 1.0)],
)  # fmt: skip
def test_gold_from_the_answer_column(reward, answer, text, expected):
    assert reward("accuracy", [text], settings={"gold_column": "answer"}, answer=[answer], solution=["9"]) == [expected]


def test_verdicts_follow_their_completion(engine):
    """Permutation-equivariant and deterministic: neither order nor company nor another engine changes a verdict."""
    pairs = corpus.pairs(120)
    first = engine("accuracy").reward_funcs[0]
    again = engine("accuracy", verify_timeout=11.0).reward_funcs[0]
    forward = first(completions=completions(*[text for _, text in pairs]), solution=[gold for gold, _ in pairs])
    pairs.reverse()
    backward = again(completions=completions(*[text for _, text in pairs]), solution=[gold for gold, _ in pairs])
    assert forward == backward[::-1]
