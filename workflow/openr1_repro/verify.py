"""One answer against one gold with math-verify: what the worker processes of `rewards.pool` and `prepare.answers` run.

The verdict is that of ``verify(parse(gold), parse(text))`` with the settings of open-r1's rewards. What is done once
instead of every time: compiling the expressions, reading a gold, and comparing an answer that has been compared before.
Numbers and fractions of numbers are built directly instead of going through the LaTeX parser.

This file imports nothing of the project: the pool starts it by its path, so that a worker holds SymPy and no more.
"""

import ctypes
import gc
import json
import logging
import os
import re
import resource
import signal
import socket
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
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended import NormalizationConfig, latex2sympy2
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

_NUMBER = re.compile(r"-?[0-9]{1,15}")
_DECIMAL = re.compile(r"-?[0-9]{0,7}\.[0-9]{1,7}")
_FRACTION = re.compile(r"(-?)\\frac\{(-?[0-9]{1,15})\}\{(-?[0-9]{1,15})\}")
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


def cpu_timeout(timeout_seconds: float | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """math-verify's ``timeout``, counting this process's CPU time: a busy machine must not turn an answer wrong. None: no limit."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutException("Operation timed out!")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if timeout_seconds is None:
            return function

        def limited(*arguments: Any, **named: Any) -> Any:
            signal.signal(signal.SIGPROF, stop)
            signal.setitimer(signal.ITIMER_PROF, timeout_seconds)
            try:
                return function(*arguments, **named)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)

        return limited

    return decorate


_create_parser = latex2sympy2._Latex2Sympy.create_parser


def create_parser(self: latex2sympy2._Latex2Sympy, latex: str) -> latex2sympy2.PSParser:
    """latex2sympy2's parser in ANTLR's fast mode, and again in the full one if that finds an error.

    Where SLL finds a tree, it is the tree that LL finds (ANTLR 4, ``PredictionMode.SLL``); its errors may be its own.
    """
    fast = _create_parser(self, latex)
    fast._interp.predictionMode = PredictionMode.SLL

    def math() -> Any:
        try:
            return latex2sympy2.PSParser.math(fast)
        except MemoryError:
            raise
        except Exception:
            return latex2sympy2.PSParser.math(_create_parser(self, latex))

    fast.math = math
    return fast


_symbolic_eq = grader.sympy_symbolic_eq
_SMOOTH = (
    sympy.Add,
    sympy.Mul,
    sympy.Pow,
    sympy.Number,
    sympy.NumberSymbol,
    sympy.Symbol,
    sympy.sin,
    sympy.cos,
    sympy.exp,
)


def value(expression: Any, symbols: list[sympy.Symbol]) -> complex | None:
    """``expression`` at a point of its symbols, to 15 digits; None where that is not a plain finite number."""
    if not isinstance(expression, sympy.Expr) or not all(
        isinstance(p, _SMOOTH) for p in sympy.preorder_traversal(expression)
    ):
        return None
    point = {symbol: sympy.Rational(7 + 3 * n, 11 + 2 * n) for n, symbol in enumerate(symbols)}
    number = expression.subs(point).evalf(15)
    return complex(number) if number.is_number and number.is_finite else None


def symbolic_eq(a: Any, b: Any) -> bool:
    """math-verify's ``sympy_symbolic_eq``, which simplifies a - b; not asked where a and b differ at a point.

    What differs somewhere is no identity, so that no simplification makes the difference zero.
    """
    try:
        symbols = sorted(a.free_symbols | b.free_symbols, key=str)
        left, right = value(a, symbols), value(b, symbols)
        if left is not None and right is not None and abs(left - right) > 1e-6 * (1 + abs(left) + abs(right)):
            return False
    except MemoryError:
        raise
    except Exception:  # as math-verify: what cannot be computed decides nothing
        pass
    return _symbolic_eq(a, b)


def speed_up_math_verify() -> None:
    """Put the quicker and CPU-timed parts into math-verify, for the whole process: a worker's, never the trainer's."""
    parser.parse_latex_cached = _read_latex
    latex2sympy2._Latex2Sympy.create_parser = create_parser
    grader.sympy_symbolic_eq = symbolic_eq
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
        speed_up_math_verify()
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


WARM = [
    r"\frac{x^2+1}{\sqrt{3}-y}", r"2\pi", r"(3,4)", r"[0,1)\cup(2,\infty)", r"\{1,2,3\}", "x=5", "a=1,b=2", r"x\le -3", r"1<x<2",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"25\%", r"\text{Tuesday}", r"\sin(2x)\cos^2 x", r"\log_2 8", r"\binom{5}{2}", "5!",
    r"|x-1|", r"e^{i\pi}", r"120^\circ", r"\pm 3", r"\sum_{k=1}^n k", r"\int_0^1 x dx", r"y=2x+3", r"f(x)=x^2", r"\sqrt[3]{2}",
    r"3\cdot 10^{-4}", "A", "x^2+2x+1", r"n(n+1)/2", r"\infty", r"\frac{a+b}{2}", r"3+4i", r"\lfloor x\rfloor",
]  # fmt: skip
"""LaTeX of the usual shapes: reading them once fills the parser's tables, which takes seconds, before any completion comes."""


def serve(descriptor_in: int, descriptor_out: int, seconds: float, memory_mb: int) -> None:
    """Answer a JSON line of items ``[[rule, gold, text], …]`` by a line for each, before it ``"gold"`` if its gold was new.

    An item's line is ``[verdict, fault]``; a fault is "timeout" or "memory", and the verdict then wrong. A worker that has
    grown says ``"grown"`` and ends, whatever items it still has.
    """
    limit = (memory_kb(0) + memory_mb * 1024) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resident = memory_kb(1) + memory_mb * 1024 // 4
    timed_out: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: timed_out.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("math_verify")
    logger.addHandler(handler)
    logger.propagate = False
    verifier = Verifier(seconds)
    results = os.fdopen(descriptor_out, "w", buffering=1)
    for line in os.fdopen(descriptor_in, "rb"):
        for rule, gold, text in json.loads(line):
            timed_out.clear()
            try:
                if (gold, rule) not in verifier.golds:
                    verifier.gold(gold, rule)
                    print('"gold"', file=results)
                verdict = verifier.verdict(gold, text, rule)
                fault = "timeout" if any(message.startswith("Timeout") for message in timed_out) else None
            except MemoryError:
                verdict, fault = False, "memory"
            print(json.dumps([verdict, fault]), file=results)
            if fault == "memory" or memory_kb(1) > resident:
                print('"grown"', file=results)
                return


def main() -> None:
    """Import and warm up once, then fork a worker for each pair of pipes that comes over the socket; reply its process id.

    Arguments: the socket, the parent's process id, CPU seconds for one step of math-verify, memory in MB for a worker.
    """
    control, parent, seconds, memory_mb = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no worker stays a zombie
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)  # "equations=True is deprecated", each time
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    verifier = Verifier(seconds)
    for gold, answer in zip(WARM, [*WARM[1:], WARM[0]], strict=True):
        verifier.verdict(f"${gold}$", f"\\boxed{{{answer}}}", "accuracy")
        verifier.verdict(f"${gold}$", f"\\boxed{{{gold}}}", "accuracy")
    logging.getLogger("math_verify").setLevel(logging.WARNING)
    gc.collect()
    gc.freeze()  # what is shared with the workers stays shared
    nursery = os.getpid()
    with socket.socket(fileno=control) as requests:
        while True:
            _, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
            if not descriptors:
                return  # the pool is gone
            worker = os.fork()
            if worker == 0:
                end_with(nursery)
                requests.close()
                serve(descriptors[0], descriptors[1], seconds, memory_mb)
                os._exit(0)
            for descriptor in descriptors:
                os.close(descriptor)
            requests.send(worker.to_bytes(8, "little"))


def end_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
