"""One answer against one gold with math-verify: what a worker process of `pool` runs.

The verdict is that of ``verify(parse(gold), parse(text))`` with the settings of open-r1's rewards. What is done once
instead of every time: compiling the expressions, reading a gold, and comparing an answer that has been compared before.
Numbers and fractions of numbers are built directly instead of going through the LaTeX parser.

This file imports nothing of the project: it is started by its path, so that a worker holds SymPy and no more.
"""

import ctypes
import json
import logging
import os
import re
import resource
import signal
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import math_verify.grader as grader
import math_verify.parser as parser
import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException


def _answer_config(boxed: Any) -> LatexExtractionConfig:
    # open-r1's: an answer must be LaTeX, boxed or announced, with no malformed operators to mend.
    normalization = NormalizationConfig(
        nits=False, malformed_operators=False, basic_latex=True, equations=True, boxed=boxed, units=True
    )
    return LatexExtractionConfig(
        normalization_config=normalization, boxed_match_priority=0, try_extract_without_anchor=False
    )


ANSWER = {"accuracy": _answer_config("all"), "length": _answer_config(True)}
"""How an answer is read, by rule: open-r1's `accuracy_reward`, and its `len_reward` and `cosine_scaled_reward`."""

PATTERNS = [
    [pattern for pattern, _ in group]
    for _, group in groupby(sorted(parser.lazy_latex_regex(ANSWER["accuracy"]), key=lambda p: p[1]), key=lambda p: p[1])
]
"""math-verify's expressions for an answer, those of one priority together (the same for both rules)."""

_BOXED_ENVIRONMENT = PATTERNS[0][1]
_OPENING = re.compile(r"\$|\\[\[(]|\s\[")

_NUMBER = re.compile(r"-?\d{1,15}")
_DECIMAL = re.compile(r"-?\d{0,7}\.\d{1,7}")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d{1,15})\}\{(-?\d{1,15})\}")
_parse_latex = parser.parse_latex_cached.__wrapped__


def exact(latex: str) -> sympy.Number | None:
    """The number that ``latex`` is, if it is an integer, a short decimal or a fraction of integers; None otherwise.

    Equal in type and value to what math-verify's LaTeX parser makes of the same text.
    """
    if _NUMBER.fullmatch(latex):
        return sympy.Integer(latex)
    if _DECIMAL.fullmatch(latex):
        return sympy.Float(latex)
    if (match := _FRACTION.fullmatch(latex)) and int(match[3]):
        return sympy.Rational(int(match[2]), int(match[3])) * (-1 if match[1] else 1)
    return None


@lru_cache(maxsize=4096)
def _read_latex(latex: str) -> Any:
    number = exact(latex)
    return _parse_latex(latex) if number is None else number


def cpu_timeout(timeout_seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """math-verify's ``timeout``, counting this process's CPU time: a busy machine must not turn an answer wrong."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutException("Operation timed out!")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*arguments: Any, **named: Any) -> Any:
            signal.signal(signal.SIGPROF, stop)
            signal.setitimer(signal.ITIMER_PROF, timeout_seconds)
            try:
                return function(*arguments, **named)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)

        return limited

    return decorate


parser.parse_latex_cached = _read_latex
parser.timeout = grader.timeout = cpu_timeout


def read_gold(gold: str, rule: str, seconds: float) -> list[Any]:
    """What math-verify finds in a gold text: an expression and its text, or an empty list."""
    if rule == "accuracy":
        return parse(gold, extraction_mode="first_match", parsing_timeout=seconds)
    return parse(
        gold, extraction_mode="first_match", extraction_config=[LatexExtractionConfig()], parsing_timeout=seconds
    )


def _in_environment(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """``pattern.finditer(text)`` for the expression of a box inside a LaTeX environment, in a fraction of the time.

    Such a match begins where an environment opens and reaches a box before anything that closes it: a line's end, for
    the inline ones. So for each box only what stands after the last of those is tried.
    """
    position = 0
    while (box := text.find("\\boxed{", position)) >= 0:
        starts = [max(text.rfind("\n", position, box), position)]
        if (dollars := text.rfind("$$", position, box)) >= 0:
            starts.append(max(dollars - 1, position))  # of $$$, the first two may open as well
        if (bracket := text.find("\\[", max(text.rfind("\\]", position, box), position), box)) >= 0:
            starts.append(bracket)
        position = box + 1
        for opening in _OPENING.finditer(text, min(starts), box):
            start = opening.start()
            closing = "$$" if text.startswith("$$", start) else "\\]" if opening[0] == "\\[" else "\n"
            if text.find(closing, start + len(closing), box) < 0 and (match := pattern.match(text, start)):
                yield match
                position = match.end()
                break


def locate(text: str) -> re.Match[str] | None:
    """The match that math-verify takes the answer from: of the first priority with a match, the one that ends last."""
    for group in PATTERNS:
        matches = (
            match
            for pattern in group
            for match in (_in_environment(pattern, text) if pattern is _BOXED_ENVIRONMENT else pattern.finditer(text))
        )
        found = max(matches, key=lambda match: (match.end(), -match.start()), default=None)
        if found is not None:
            return found
    return None


class Verifier:
    """Golds that were read and answers that were compared, kept while they are likely to come again."""

    def __init__(self, seconds: float, size: int = 4096):
        self.seconds = seconds
        self.size = size
        self.golds: OrderedDict[tuple[str, str], list[Any]] = OrderedDict()
        self.verdicts: OrderedDict[tuple[Any, ...], bool] = OrderedDict()

    def gold(self, gold: str, rule: str) -> list[Any]:
        """`read_gold`, once."""
        key = gold, rule
        if key not in self.golds:
            self.golds[key] = read_gold(gold, rule, self.seconds)
            if len(self.golds) > self.size:
                self.golds.popitem(last=False)
        return self.golds[key]

    def verdict(self, gold: str, text: str, rule: str) -> bool | None:
        """Whether ``text`` answers ``gold``; None if the gold cannot be read."""
        gold_parsed = self.gold(gold, rule)
        if not gold_parsed:
            return None
        match = self._attempt(locate, text)
        # All that the answer depends on: the same groups give the same answer, whatever stands around them.
        found = tuple((name, value) for name, value in match.groupdict().items() if value) if match else ()
        key = gold, rule, found
        if key not in self.verdicts:
            self.verdicts[key] = self._compare(gold_parsed, match, rule)
            if len(self.verdicts) > self.size:
                self.verdicts.popitem(last=False)
        return self.verdicts[key]

    def _attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        # As math-verify's parse(): a step that fails or takes too long finds nothing.
        try:
            return cpu_timeout(self.seconds)(function)(*arguments)
        except MemoryError:
            raise
        except Exception:
            return None
        except TimeoutException:
            logging.getLogger("math_verify").warning("Timeout during parsing")
            return None

    def _compare(self, gold_parsed: list[Any], match: re.Match[str] | None, rule: str) -> bool:
        answer: list[Any] = []
        if match and (extracted := self._attempt(parser.extract_latex, match, ANSWER[rule])):
            expression, text = extracted
            answer = [part for part in (expression,) if part is not None] + [part for part in (text,) if part]
        if rule == "accuracy":
            return bool(verify(gold_parsed, answer, timeout_seconds=self.seconds))
        return bool(verify(answer, gold_parsed, timeout_seconds=self.seconds))  # open-r1's order here


def memory_kb(which: int) -> int:
    """This process's virtual (0) or resident (1) memory in KiB."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[which]) * resource.getpagesize() // 1024


def main() -> None:
    """Serve: a JSON line ``[gold, text, rule]`` in; out ``"gold"`` once a new gold has been read, then the result.

    Arguments: CPU seconds for one step of math-verify, memory in MB, the parent's process id. The result is
    ``[verdict, fault]``; a fault is "timeout" or "memory", the verdict then wrong. A worker that has grown ends by
    itself after answering.
    """
    seconds, memory_mb, parent = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives the trainer, however that ends
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not enter the protocol
    warnings.simplefilter("ignore")
    logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)  # "equations=True is deprecated", each time
    verifier = Verifier(seconds)
    verifier.verdict("$x+1$", "\\boxed{\\sqrt{2}+x}", "accuracy")  # SymPy's late imports, before the memory limit
    timed_out: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: timed_out.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("math_verify")
    logger.addHandler(handler)
    logger.propagate = False
    limit = (memory_kb(0) + memory_mb * 1024) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resident = memory_kb(1) + memory_mb * 1024 // 4
    print('"ready"', file=results)
    for line in sys.stdin.buffer:
        timed_out.clear()
        try:
            gold, text, rule = json.loads(line)
            if (gold, rule) not in verifier.golds:
                verifier.gold(gold, rule)
                print('"gold"', file=results)
            verdict = verifier.verdict(gold, text, rule)
            fault = "timeout" if any(message.startswith("Timeout") for message in timed_out) else None
        except MemoryError:
            verdict, fault = False, "memory"
        print(json.dumps([verdict, fault]), file=results)
        if fault == "memory" or memory_kb(1) > resident:
            return


if __name__ == "__main__":
    main()
