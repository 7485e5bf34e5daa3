r"""The rewards as plain functions of texts, token ids and verdicts: formulas only, no process, no file, no clock.

``completions`` is TRL's ``list[list[{"role", "content"}]]``, one entry a completion; each function returns one reward a
completion, in order, ``None`` where a sample is to be skipped. ``verdicts`` holds what `verify` found: True, False, or
None where the gold has no answer that math-verify can read. Rewards and names follow open-r1 (Hugging Face,
``open_r1/rewards.py``); a docstring says where one does not.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

Completions = list[list[dict[str, str]]]
Rewards = list[float | None]

_STEP = re.compile(r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,")


def accuracy(verdicts: list[bool | None]) -> Rewards:
    r"""1 if the completion's answer equals the gold answer, else 0; None if the gold cannot be read.

    Formula: $r = [\text{answer} = \text{gold}]$
    Range: {0, 1, None}

    The answer is what stands in the last box, or after "the answer is", and must be LaTeX; math-verify compares.

    >>> accuracy([True, False, None])
    [1.0, 0.0, None]
    """
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def format(completions: Completions, whole_text: bool = True) -> Rewards:
    r"""1 if the text is a thought in think tags and then an answer in answer tags, each tag on its own line.

    Formula: $r = [\text{text matches}$ `^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$` $]$, the dot any character
    Range: {0, 1}

    open-r1 compiles the pattern with MULTILINE, so that any lines may follow `</answer>`: `format_whole_text: false`.

    >>> format([[{"content": "<think>\nTwo and two.\n</think>\n<answer>\n4\n</answer>"}], [{"content": "4"}]])
    [1.0, 0.0]
    """
    return [float(_tagged(completion[0]["content"], [], whole_text)) for completion in completions]


def tag_count(completions: Completions) -> Rewards:
    r"""A quarter for each tag that occurs exactly once, with the line breaks that belong to it.

    Formula: $r = \frac14 \sum_t [\text{count}(t) = 1]$ over `<think>\n`, `\n</think>\n`, `\n<answer>\n`, `\n</answer>`
    Range: {0, 0.25, 0.5, 0.75, 1}

    >>> tag_count([[{"content": "<think>\nTwo and two.\n</think>\n4"}]])
    [0.5]
    """
    tags = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")
    return [0.25 * sum(completion[0]["content"].count(tag) == 1 for tag in tags) for completion in completions]


def reasoning_steps(completions: Completions) -> Rewards:
    r"""A third for each sign of a step, up to three.

    Formula: $r = \min(1, n/3)$ with n the matches of `Step \d+:`, `^\d+\.`, `\n-`, `\n*`, `First,`, `Second,`, `Next,`,
    `Finally,`
    Range: [0, 1]

    As in open-r1, a number with a dot counts at the very start of the text only.

    >>> reasoning_steps([[{"content": "Step 1: subtract 3. Step 2: halve."}], [{"content": "First, a\n- b\n- c"}]])
    [0.6666666666666666, 1.0]
    """
    return [min(1.0, len(_STEP.findall(completion[0]["content"])) / 3) for completion in completions]


def length(completions: Completions, verdicts: list[bool | None], groups: Sequence[Any] | None = None) -> Rewards:
    r"""Shorter is better among the completions of one prompt; a wrong one never gains (Kimi k1.5, arXiv 2501.12599).

    Formula: $\lambda = \frac12 - \frac{\text{len} - \min}{\max - \min}$ over the group; right: $r = \lambda$,
    wrong: $r = \min(0, \lambda)$, all of one length: 0
    Range: [-0.5, 0.5], None

    Lengths are characters. ``groups`` names each completion's prompt; None: all are one group, which is what open-r1
    does with whatever a process holds at the moment.

    >>> texts = [[{"content": "x" * n}] for n in (10, 20, 30, 10)]
    >>> length(texts, [True, True, False, False])
    [0.5, 0.0, -0.5, 0.0]
    """
    lengths = [len(completion[0]["content"]) for completion in completions]
    groups = [None] * len(lengths) if groups is None else groups
    bounds: dict[Any, tuple[int, int]] = {}
    for group, size in zip(groups, lengths, strict=True):
        shortest, longest = bounds.get(group, (size, size))
        bounds[group] = min(shortest, size), max(longest, size)
    rewards: Rewards = []
    for group, size, right in zip(groups, lengths, verdicts, strict=True):
        shortest, longest = bounds[group]
        value = 0.5 - (size - shortest) / (longest - shortest) if longest > shortest else 0.0
        rewards.append(None if right is None else value if right else min(0.0, value))
    return rewards


def cosine(
    lengths: list[int],
    verdicts: list[bool | None],
    min_value_wrong: float = 0.0,
    max_value_wrong: float = -0.5,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    max_len: int = 1000,
) -> Rewards:
    r"""A right answer is worth more when short, a wrong one less when short (arXiv 2502.03373, C.1).

    Formula: $r = v_0 + \frac12 (v_1 - v_0) (1 + \cos(\pi\, \text{len} / L))$ with $L$ = `cosine_max_len`;
    right: $v_0$ = `cosine_min_value_correct`, $v_1$ = `cosine_max_value_correct`;
    wrong: $v_0$ = `cosine_max_value_wrong`, $v_1$ = `cosine_min_value_wrong`
    Range: between the two bounds, None

    open-r1 counts characters and lets the cosine turn back beyond L; TRL counts tokens and stops there
    (`cosine_unit: tokens`). open-r1's command defaults to 0 for the shortest wrong answer and -0.5 for the longest, the
    reverse of the paper; its function, and TRL's, to -1 and -0.5.

    >>> cosine([0, 500, 1000], [True, True, True])
    [1.0, 0.75, 0.5]
    >>> cosine([0, 1000, 0], [False, False, None], min_value_wrong=-1.0)
    [-1.0, -0.5, None]
    """
    rewards: Rewards = []
    for size, right in zip(lengths, verdicts, strict=True):
        low, high = (min_value_correct, max_value_correct) if right else (max_value_wrong, min_value_wrong)
        value = low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * (size / max_len)))
        rewards.append(None if right is None else float(value))
    return rewards


def repetition_penalty(
    completions: Completions, n_grams: int = 3, max_penalty: float = -1.0, language: str = "en"
) -> Rewards:
    r"""The share of n-grams that are repetitions, times a penalty (arXiv 2502.03373, C.2).

    Formula: $r = (1 - \text{unique n-grams} / \text{n-grams}) \cdot$ `repetition_max_penalty`; shorter than n: 0
    Range: [`repetition_max_penalty`, 0]

    Words are lower-cased and split at spaces (`repetition_language: en`) or cut by jieba (`zh`), as in open-r1;
    `tokens` is TRL's rule, on token ids.

    >>> repetition_penalty([[{"content": "this this this this this"}], [{"content": "all words differ"}]], n_grams=2)
    [-0.75, 0.0]
    """
    rewards: Rewards = []
    for completion in completions:
        text = completion[0]["content"]
        if language == "zh":
            import jieba

            words = jieba.lcut(text)
        else:
            words = text.lower().split()
        grams = list(zip(*(words[start:] for start in range(n_grams)), strict=False))
        rewards.append((len(set(grams)) / len(grams) - 1) * -max_penalty if grams else 0.0)
    return rewards


def soft_overlong_punishment(
    completion_ids: list[list[int]], max_completion_len: int, soft_punish_cache: int
) -> Rewards:
    r"""Nothing up to a soft limit, then falling to -1 at the hard one (DAPO, arXiv 2503.14476, equation 13).

    Formula: $r = 0$ if $n \le L - c$; $(L - c - n)/c$ if $L - c < n \le L$; $-1$ if $n > L$, with n the tokens,
    $L$ = `max_completion_len`, $c$ = `soft_punish_cache`
    Range: [-1, 0]

    TRL's own function, which is open-r1's too.

    >>> soft_overlong_punishment([[0] * 80, [0] * 90, [0] * 101], max_completion_len=100, soft_punish_cache=20)
    [0.0, -0.5, -1.0]
    """
    from trl.rewards import get_soft_overlong_punishment

    return get_soft_overlong_punishment(max_completion_len, soft_punish_cache)(completion_ids)


def code_format(completions: Completions, languages: list[str], whole_text: bool = True) -> Rewards:
    r"""The format rule, with a fenced block of the asked language inside the answer.

    Formula: $r = [\text{text matches}$ ``^<think>\n.*?\n</think>\n<answer>\n.*?```LANGUAGE.*?```.*?\n</answer>$`` $]$
    Range: {0, 1}

    LANGUAGE is the row's `language`, or `code_language` where the data set has no such column; open-r1 reads it as a
    regular expression, this project as a name.

    >>> text = "<think>\nprint it\n</think>\n<answer>\n```python\nprint(4)\n```\n</answer>"
    >>> code_format([[{"content": text}], [{"content": text}]], ["python", "cpp"])
    [1.0, 0.0]
    """
    return [
        float(_tagged(completion[0]["content"], [f"```{language}", "```"], whole_text))
        for completion, language in zip(completions, languages, strict=True)
    ]


def code(shares: list[float | None]) -> Rewards:
    r"""The share of a problem's test cases that the program passes in a sandbox; None if it could not be run.

    Formula: $r = \text{passed} / \text{tests}$
    Range: [0, 1], None

    The program is the last fenced block of the problem's language. A test passes if the program ends with status 0 and
    its output has the expected lines, spaces at their ends aside; open-r1 compares only as many lines as both have. A
    test that runs out of time fails, and so do those after it.

    >>> code([0.5, None])
    [0.5, None]
    """
    return list(shares)


def binary_code(shares: list[float | None]) -> Rewards:
    r"""1 if the program passes (more than 0.99 of) the test cases, else 0; None if it could not be run.

    Formula: $r = [\text{passed} / \text{tests} > 0.99]$
    Range: {0, 1, None}

    >>> binary_code([1.0, 0.5, None])
    [1.0, 0.0, None]
    """
    return [None if share is None else float(share > 0.99) for share in shares]


def ioi_code(scores: list[list[float]], score_precision: int = 2) -> Rewards:
    r"""The score of an IOI subtask: that of its worst test.

    Formula: $r = \min_t \text{score}(t)$, rounded to the subtask's `score_precision`
    Range: [0, 1], None

    The C++ program, with the headers that models forget, goes to a Piston server, `code_eval_test_batch_size` tests at
    a time until one scores 0. No program: 0; a server that cannot be reached: None (open-r1: 0).

    >>> ioi_code([[1.0, 0.25], [1.0, 1.0], []])
    [0.25, 1.0, 0.0]
    """
    return [round(min(tests, default=0.0), score_precision) for tests in scores]


def cf_code(passed: list[tuple[int, int]], scoring_mode: str = "weighted_sum") -> Rewards:
    r"""The score of a Codeforces problem, official and generated tests together.

    Formula: pass_fail: $p = [\text{passed} = \text{tests}]$; partial: $s = \text{passed} / \text{tests}$;
    weighted_sum: $p + s/10$. No program: $-1$; one that does not compile: $-0.1$
    Range: [-1, 1.1], None

    The program, in the row's `language`, goes to a Piston server, `code_eval_test_batch_size` tests at a time, with the
    problem's checker. A problem without tests, or a server that cannot be reached: None.

    >>> cf_code([(10, 10), (5, 10)])
    [1.1, 0.05]
    >>> cf_code([(10, 10), (5, 10)], scoring_mode="pass_fail")
    [1.0, 0.0]
    """
    rewards: Rewards = []
    for right, tests in passed:
        everything, part = float(right == tests), right / tests
        rewards.append(
            {"pass_fail": everything, "partial": part, "weighted_sum": everything + 0.1 * part}[scoring_mode]
        )
    return rewards


def _tagged(text: str, inside: list[str], whole_text: bool) -> bool:
    """Whether ``text`` is a thought and an answer that holds the strings of ``inside`` in that order.

    Searches from left to right, taking the first place for each part: the same verdict as the regular expression's, in
    linear time. The expression itself takes minutes on a megabyte of half-closed tags.
    """
    if not text.startswith("<think>\n"):
        return False
    position = len("<think>\n")
    for part in ["\n</think>\n<answer>\n", *inside]:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    end = "\n</answer>"
    if text.endswith(end, position) or text.endswith(end + "\n", position):
        return True
    return not whole_text and text.find(end + "\n", position) >= 0
