"""Programs that a completion holds, and the share of a problem's tests that each passes."""

import json
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from openr1_repro.rewards import sandbox
from openr1_repro.rewards.sandbox import Limits

logger = logging.getLogger(__name__)

COMPILE_LIMITS = Limits(seconds=30.0, memory_mb=2048)


@dataclass(frozen=True)
class Program:
    """A program with its problem's tests: pairs of standard input and expected standard output."""

    language: str
    source: str
    tests: tuple[tuple[str, str], ...]


Judge = Callable[[Program, float], float | None]
"""Gives a program's share of passed tests, in 0…1, by a moment of `time.monotonic`; None if it could not be found."""


def extract(text: str, language: str) -> str:
    """The last fenced block of ``language`` in ``text``, as open-r1's ``extract_code``; empty if there is none.

    >>> extract("```python\\nprint(1)\\n```\\nbetter:\\n```python\\nprint(2)\\n```", "python")
    'print(2)\\n'
    """
    blocks = re.findall(rf"```{re.escape(language)}\n(.*?)```", text, re.DOTALL)
    return blocks[-1] if blocks else ""


def program(text: str, verification_info: Any) -> Program | None:
    """The program of a completion for a row's ``verification_info``: a struct or JSON with language and test_cases.

    None if the row has no tests.
    """
    info = json.loads(verification_info) if isinstance(verification_info, str) else verification_info
    if not info or not info.get("test_cases"):
        return None
    tests = tuple((case["input"] or "", case["output"] or "") for case in info["test_cases"])
    return Program(info["language"], extract(text, info["language"]), tests)


def same_output(actual: str, expected: str) -> bool:
    """Whether two outputs have the same lines, spaces at their ends aside.

    open-r1 compares as many lines as the shorter of the two has, so that the first line alone passes.
    """
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (actual, expected))
    return ours == theirs


def shares(programs: list[Program], judge: Judge, parallel: int, seconds: float) -> list[float | None]:
    """Judge all, ``parallel`` at a time, in about ``seconds``; None for those that are not done by then.

    A completion without a program has a share of 0. A test that runs out of a limit ends its program: what remains of its
    tests counts as failed, so that one that sleeps does not spend the time of all.
    """
    end = time.monotonic() + seconds

    def one(program: Program) -> float | None:
        if not program.source:
            return 0.0
        if time.monotonic() >= end:
            return None
        try:
            return judge(program, end)
        except OSError as error:  # a provider that cannot be reached says nothing about the program
            logger.warning("a program was not judged: %s", error)
            return None

    with ThreadPoolExecutor(parallel) as executor:
        return list(executor.map(one, programs))


def local_judge(test_seconds: float, memory_mb: int) -> Judge:
    """Run programs in bubblewrap on this machine. The expected output never enters the sandbox.

    Raises:
        UserError: if there is no bubblewrap.
    """
    sandbox.check_available()

    def judge(program: Program, end: float) -> float | None:
        if program.language not in sandbox.COMMANDS:
            logger.warning("code_provider: local runs %s, not %s", ", ".join(sandbox.COMMANDS), program.language)
            return None
        limits = Limits(test_seconds, memory_mb, address_space=program.language != "javascript")
        files = {"main": program.source.encode(errors="replace")}
        if program.language in sandbox.COMPILERS:
            binary, _ = sandbox.compile_program(program.language, files, COMPILE_LIMITS)
            if binary is None:
                return 0.0
            files = {"program": binary}
        passed = 0
        for given, expected in program.tests:
            if (left := end - time.monotonic()) <= 0:
                return None
            outcome = sandbox.run(
                sandbox.command(program.language, limits), files, given.encode(),
                replace(limits, seconds=min(test_seconds, left)),
            )  # fmt: skip
            if outcome.stopped:
                break
            passed += outcome.code == 0 and same_output(outcome.stdout.decode(errors="replace"), expected)
        return passed / len(program.tests)

    return judge
