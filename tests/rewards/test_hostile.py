"""Texts made to stall, fill or break a verifier: every batch ends in its time, and the pool works afterwards."""

import os
import time

import pytest

from .conftest import completions

LIMITS = {"verify_timeout": 1.0, "verify_memory_mb": 256, "verify_batch_timeout": 240.0}


def box(answer):
    return f"The answer is $\\boxed{{{answer}}}$"


def nested(left, right, depth, core="1"):
    return left * depth + core + right * depth


HOSTILE = {
    # numbers that nobody can write down
    "tower": box("9^{9^{9^9}}"),
    "tower of powers": box("9^{9^{9^{9^{9^{9}}}}}"),
    "huge power": box("10^{10^{10}}"),
    "huge power minus itself": box("10^{10^{9}}-10^{10^{9}}"),
    "factorials": box("(((99!)!)!)!"),
    "double factorial": box("999999999!"),
    "binomial": box(r"\binom{10^{9}}{5\cdot 10^{8}}"),
    "huge root": box(r"\sqrt[999999999]{10^{999999999}}"),
    "modulo": box(r"7^{7^{7^{7}}} \mod 1000"),
    "gcd": box(r"\gcd(2^{99999999}-1, 2^{88888888}-1)"),
    "digits": box("9" * 200_000),
    "megabytes of digits": box("7" * 2_000_000),
    "decimals": box("0." + "3" * 100_000),
    "fraction of digits": box(rf"\frac{{{'1' * 50_000}}}{{{'3' * 50_000}}}"),
    "huge exponent of e": box("e^{e^{e^{e^{e}}}}"),
    "many nines in powers": box("+".join(f"9^{{9^{{{n}}}}}" for n in range(9, 40))),
    # depth
    "fractions in fractions": box(nested(r"\frac{1}{", "}", 300)),
    "fractions, deeper": box(nested(r"\frac{1}{", "}", 20_000)),
    "braces": box(nested("{", "}", 100_000)),
    "open braces": "\\boxed{" + "{" * 200_000,
    "closed braces": "\\boxed{1" + "}" * 200_000,
    "parentheses": box(nested("(", ")", 50_000)),
    "roots in roots": box(nested(r"\sqrt{", "}", 500, "2")),
    "absolute values": box("|" * 5_000 + "1" + "|" * 5_000),
    "sets in sets": box(nested(r"\{", r"\}", 400)),
    "boxes in boxes": nested("\\boxed{", "}", 2_000),
    "left and right": box(nested(r"\left(", r"\right)", 3_000)),
    "powers of powers": box("x" + "^{x" * 400 + "}" * 400),
    "indices": box("x" + "_{x" * 400 + "}" * 400),
    "sines": box(nested(r"\sin(", ")", 300, "x")),
    # many
    "10,000 boxes": "\\boxed{1} " * 10_000,
    "10,000 boxes in dollars": "$\\boxed{1}$ and " * 10_000,
    "10,000 open boxes": "\\boxed{" * 10_000,
    "dollars": "$" * 300_000 + "\\boxed{1}",
    "pairs of dollars": "$$ " * 50_000 + "\\boxed{1}",
    "brackets": "\\[ " * 50_000 + "\\boxed{1}",
    "lines of dollars": "$\n" * 100_000 + "\\boxed{1}",
    "commas": box("1," * 20_000),
    "equations": box("x=1," * 3_000 + "x=1"),
    "a long sum": box("+".join(str(n) for n in range(5_000))),
    "a long product of brackets": box("".join(f"(x+{n})" for n in range(150))),
    "a polynomial to expand": box("(x+y+z+w+1)^{60}"),
    "a big matrix": box(r"\begin{pmatrix}" + r"\\".join("&".join("1" for _ in range(60)) for _ in range(60)) + r"\end{pmatrix}"),
    "a matrix to a power": box(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{999999}"),
    # traps for regular expressions
    "answer answer answer": "answer" * 50_000,
    "final answer is": "final answer is " * 20_000,
    "final answer and nothing": "final answer" + " " * 200_000,
    "answer: spaces": "answer:" + " " * 100_000 + "$",
    "and or and": "$1$ and $2$ or " * 10_000 + box(1),
    "open boxes in one line": "$" + "\\boxed{1 " * 3_000 + "$",
    "percent": "$1$" + " " * 100_000 + "%",
    "backslashes": "\\" * 200_000 + "boxed{1}",
    "think tags": "<think>\n" + "\n</think>\n<answer>\n" * 20_000,
    "steps": "Step 1" * 50_000 + ":",
    "text units": box(r"1" + r"\text{ cm}" * 3_000),
    # Unicode
    "null": box("1\x001"),
    "lone surrogate": box("1\ud800"),
    "right to left": box("\u202e12\u202c"),
    "combining marks": box("1" + "\u0301" * 50_000),
    "zero width": box("\u200b".join("12345" * 2_000)),
    "full width digits": box("12" * 10_000),
    "dotless and long s": "an\u017fwer: $\\boxed{1}$ f\u0131nal an\u017fwer is $2$",
    "emoji": box("🧮" * 20_000),
    "mathematical digits": box("𝟏𝟐𝟑" * 5_000),
    "line separators": "\u2028" * 100_000 + box(1),
    # algebra without end
    "an integral": box(r"\int_0^{\infty} \frac{\sin(x^{x^x})}{x^{\pi}+\ln(1+x^{e})} dx"),
    "an integral of a tower": box(r"\int_0^1 x^{x^{x^{x^{x}}}} dx"),
    "a sum": box(r"\sum_{n=1}^{\infty} \frac{\sin(n^3)}{n^{n}+\ln n}"),
    "a product": box(r"\prod_{n=1}^{10^{9}} (1+\frac{1}{n^{3}+n+1})"),
    "a limit": box(r"\lim_{x \to 0} \frac{\sin(\tan x)-\tan(\sin x)}{x^{7}}^{x^{-x}}"),
    "trigonometry to simplify": box("+".join(rf"\sin({n}x)^{{{n}}}\cos({n + 1}x)^{{{n}}}" for n in range(2, 14))),
    "nested radicals": box("+".join(rf"\sqrt{{{p}+\sqrt{{{p + 2}+\sqrt{{{p + 4}}}}}}}" for p in range(2, 40, 3))),
    "an equation to solve": box("x^{17}+3x^{13}-x^7+y^{5}=y^{11}x^3+2"),
    "an inequality to solve": box(r"x^{9}-7x^{5}+\sin x+e^{x}>\sqrt{x}"),
    # memory
    "a list of powers": box(",".join(f"2^{{{n}00000}}" for n in range(1, 400))),
    "a power of ten": box("10^{400000000}"),
    "a repeated word": "word " * 600_000 + box(1),
}  # fmt: skip


def test_there_are_enough():
    assert len(HOSTILE) >= 60


@pytest.fixture(scope="module")
def judged(engine):
    """All hostile texts in one batch with ordinary ones: rewards, seconds, memory of the workers, the engine."""
    rewards = engine("accuracy", **LIMITS)
    texts = [text for hostile in HOSTILE.values() for text in (hostile, box("7"))]
    start = time.monotonic()
    found = rewards.reward_funcs[0](completions=completions(*texts), solution=[r"$x^2+\sqrt{7}$", "$7$"] * len(HOSTILE))
    return found, time.monotonic() - start, rewards


def test_the_batch_ends_in_its_time(judged):
    _, seconds, _ = judged
    assert seconds < LIMITS["verify_batch_timeout"] + 5


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_wrong_or_unjudged(judged, name):
    assert judged[0][2 * list(HOSTILE).index(name)] in (0.0, None)


def test_ordinary_texts_beside_them_are_judged(judged):
    found, seconds, _ = judged
    if seconds < LIMITS["verify_batch_timeout"]:
        assert found[1::2] == [1.0] * len(HOSTILE)


def test_the_pool_still_works_and_memory_has_returned(judged):
    rewards = judged[2]
    texts = [f"{n} {box(n)}" for n in range(200)]
    assert rewards.reward_funcs[0](completions=completions(*texts), solution=["$7$"] * 200).count(1.0) == 1
    for worker in rewards._pool.workers:
        with open(f"/proc/{worker.pid}/statm") as stream:
            resident = int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        assert resident < 400


def test_hostile_golds_are_none(engine):
    rewards = engine("accuracy", **LIMITS)
    golds = ["$9^{9^{9^9}}$", "\\boxed{" + "{" * 100_000, "no answer here", "", box(nested("(", ")", 20_000))]
    start = time.monotonic()
    found = rewards.reward_funcs[0](completions=completions(*[box(1)] * len(golds)), solution=golds)
    assert all(reward in (0.0, None) for reward in found)
    assert found[2] is found[3] is None
    assert time.monotonic() - start < LIMITS["verify_batch_timeout"]


def test_a_batch_is_bounded_by_the_clock(engine):
    """64 endless items, each allowed 60 s: the batch still ends when it must, and says which were not judged."""
    rewards = engine("accuracy", verify_timeout=60.0, verify_batch_timeout=3.0)
    texts = [f"{n} {box('10^{10^{10}}+' + str(n))}" for n in range(64)]
    start = time.monotonic()
    found = rewards.reward_funcs[0](completions=completions(*texts), solution=["$7$"] * 64)
    assert time.monotonic() - start < 3.0 + 5
    assert None in found
    statistics = rewards.statistics()["accuracy"]
    assert statistics["none_rate"] > 0.5
    assert statistics["timeouts"] > 0


@pytest.mark.parametrize("name", ["format", "tag_count", "reasoning_steps", "repetition_penalty", "code_format"])
def test_rewards_of_the_text_alone_take_linear_time(reward, name):
    traps = [
        "<think>\n" + "\n</think>\n<answer>\n```python```" * 60_000,
        "Step 1" * 200_000,
        "\n</answer>" * 200_000,
        "1" * 2_000_000,
    ]
    start = time.monotonic()
    reward(name, traps, solution=["1"] * len(traps))
    assert time.monotonic() - start < 60


def test_an_overrun_is_logged_with_its_text(engine, caplog):
    rewards = engine("accuracy", verify_timeout=2.0, verify_batch_timeout=60.0)
    text = box("11^{11^{11^{11}}}")
    assert rewards.reward_funcs[0](completions=completions(text), solution=["$7$"]) == [0.0]
    assert any(r"11^{11^{11^{11}}}" in record.getMessage() for record in caplog.records)
