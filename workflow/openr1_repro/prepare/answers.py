"""Which gold answers a verifier can use: math-verify parses them in worker processes that are killed when they hang."""

import os
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import polars as pl
from pebble import ProcessExpired, ProcessPool

from openr1_repro.stage import replacing

_CHUNK = 64
# Answers whose verdict needs no SymPy: tests/prepare/test_answers.py holds that math-verify says yes to every one of them.
_PLAIN = re.compile(r"-?\d{1,15}(?:\.\d{1,10})?|-?\d{1,9}/[1-9]\d{0,8}|-?\\frac\{\d{1,9}\}\{[1-9]\d{0,8}\}")


def answer_form(answer: pl.Expr) -> pl.Expr:
    """An answer without what does not change it: case, spaces, dollars, boxes of fonts, a final full stop."""
    form = answer.str.normalize("NFKC").str.to_lowercase().str.replace_many(["\\dfrac", "\\tfrac", "−"], ["\\frac", "\\frac", "-"])
    form = form.str.replace_all(r"\\(?:text|mathrm|mathbf|textbf|mbox)\b\s*\{([^{}]*)\}", "$1")
    return form.str.replace_all(r"\\[()\[\],;:! ]|\\(?:left|right|displaystyle)\b|\$|\s|\.\s*$|(?:\^\{?)?\\circ\}?", "")


def is_plain(answer: str) -> bool:
    """Whether an answer is an integer, a decimal number or a simple fraction: math-verify is known to accept those."""
    return _PLAIN.fullmatch(answer) is not None


def usable(answer: str) -> bool:
    """Whether math-verify parses an answer, and judges the same answer in a box to be right."""
    from math_verify import parse, verify  # SymPy takes a second to import: only workers pay

    boxed = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    return bool(boxed) and bool(verify(boxed, boxed, timeout_seconds=None))


def usable_answers(answers: Iterable[str], timeout: float, cache: Path | None) -> dict[str, bool]:
    """`usable` for many answers, each asked once, over all cores.

    Args:
        timeout: seconds for one answer; a worker that takes longer is killed, and the answer is not usable.
        cache: folder with the verdicts of earlier runs, by version of math-verify and its parser; null: none.
    """
    wanted = sorted({a for a in answers if not is_plain(a)})
    known: dict[str, bool] = {}
    file = cache / f"answers-{version('math-verify')}-{version('latex2sympy2-extended')}.parquet" if cache else None
    if file and file.is_file():
        known = dict(pl.read_parquet(file).iter_rows())
    new = _judge([a for a in wanted if a not in known], timeout)
    if file and new:
        merged = {**known, **new}
        with replacing(file) as draft:
            pl.DataFrame({"answer": list(merged), "usable": list(merged.values())}).sort("answer").write_parquet(draft)
    return {a: True if is_plain(a) else known[a] if a in known else new[a] for a in answers}


def _judge(answers: list[str], timeout: float) -> dict[str, bool]:
    verdicts: dict[str, bool] = {}
    if not answers:
        return verdicts
    workers = max(1, len(os.sched_getaffinity(0)))
    chunks = [answers[i : i + _CHUNK] for i in range(0, len(answers), _CHUNK)]
    with ProcessPool(max_workers=workers) as pool:
        while chunks:
            again: list[list[str]] = []
            futures = [(chunk, pool.schedule(_usable_all, args=[chunk], timeout=timeout)) for chunk in chunks]
            for chunk, future in futures:
                try:
                    verdicts |= zip(chunk, future.result(), strict=True)
                except (TimeoutError, ProcessExpired):
                    if len(chunk) == 1:
                        verdicts[chunk[0]] = False
                    again += [[a] for a in chunk] if len(chunk) > 1 else []  # one of them hangs or kills its worker: find it
            chunks = again
    return verdicts


def _usable_all(answers: list[str]) -> list[bool]:
    return [usable(answer) for answer in answers]
