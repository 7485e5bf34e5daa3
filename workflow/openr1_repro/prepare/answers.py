"""Which gold answers a verifier can use: math-verify reads them in worker processes that die when one hangs."""

import logging
import multiprocessing
import os
import re
import resource
import signal
from collections.abc import Iterable
from concurrent.futures import Future
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from pebble import ProcessExpired, ProcessPool

from openr1_repro.code import code_digest
from openr1_repro.process import die_with_parent
from openr1_repro.stage import digest, replacing

_CHUNK = 64
_WORKER_MEMORY = 2 << 30
_PLAIN = re.compile(
    r"(-?\d{1,15}(?:\.\d{1,10})?|-?\d{1,9}/[1-9]\d{0,8})|(-?)\\frac\{(\d{1,9})\}\{([1-9]\d{0,8})\}", re.ASCII
)


def answer_form(answer: pl.Expr) -> pl.Expr:
    """An answer without what does not change it: case, spaces, dollars, fonts, degrees, a final full stop."""
    form = answer.str.normalize("NFKC").str.to_lowercase()
    form = form.str.replace_many(["\\dfrac", "\\tfrac", "−"], ["\\frac", "\\frac", "-"])
    form = form.str.replace_all(r"\\(?:text|mathrm|mathbf|textbf|mbox)\b\s*\{([^{}]*)\}", "$1")
    markup = r"\\[()\[\],;:! ]|\\(?:left|right|displaystyle)\b|\$|\s|\.\s*$|(?:\^\{?)?\\circ\}?"
    return form.str.replace_all(markup, "")


def canonical_plain(answer: str) -> str | None:
    """An integer, decimal or simple fraction in lowest terms; null for anything else.

    These need no SymPy: math-verify accepts every one of them (tests/prepare/test_answers.py).

    >>> canonical_plain("0.50"), canonical_plain("-\\\\frac{4}{2}"), canonical_plain("\\\\pi")
    ('1/2', '-2', None)
    """
    match = _PLAIN.fullmatch(answer)
    if not match:
        return None
    number, sign, top, bottom = match.groups()
    return str(Fraction(number) if number else Fraction(int(f"{sign}{top}"), int(bottom)))


def canonical(answer: str) -> str | None:
    """How math-verify reads an answer in a box; null if it does not find the answer equal to itself.

    The gold is read, and the answer judged, as in open-r1's accuracy reward. Null too if it finds text but no
    expression (``5.``, ``\\approx 3``): such a gold equals nothing but its own letters.
    """
    gold, text = _parsed(answer)
    from math_verify import verify

    known = gold and not isinstance(gold[0], str) and verify(gold, text, timeout_seconds=None)
    return str(gold[0]) if known else None


def same(pair: tuple[str, str]) -> bool:
    """Whether math-verify judges either answer right where the other is gold."""
    from math_verify import verify

    (first, first_text), (second, second_text) = map(_parsed, pair)
    return verify(first, second_text, timeout_seconds=None) or verify(second, first_text, timeout_seconds=None)


def canonical_answers(answers: Iterable[str], seconds: float, cache: Path | None) -> dict[str, str | None]:
    """`canonical` of many answers, each asked once, over all cores.

    Args:
        answers: may repeat.
        seconds: CPU time for one answer; a worker that takes longer is killed by the kernel, and the answer is null.
        cache: folder that keeps the verdicts, in a file for all that they depend on; null: none.
    """
    answers = sorted(set(answers))
    verdicts = {a: plain for a in answers if (plain := canonical_plain(a)) is not None}
    file = cache / f"{_identity(seconds)}.parquet" if cache else None
    known = _kept(file) if file else {}
    new = [a for a in answers if a not in verdicts and a not in known]
    print(f"answers: {len(answers):,} distinct, {len(new):,} for math-verify to read", flush=True)
    known |= zip(new, in_workers(canonical, new, seconds), strict=True)
    if file and new:
        with replacing(file) as draft:
            table = pl.DataFrame({"answer": list(known), "canonical": list(known.values())}, schema=_CACHE)
            table.sort("answer").write_parquet(draft)
    return {a: verdicts[a] if a in verdicts else known[a] for a in answers}


def in_workers(function: Any, items: list[Any], seconds: float) -> list[Any]:
    """``function`` of each item, over all cores; null for one that fails or takes too much time or memory.

    Args:
        function: of this module, so that a fresh process finds it.
        seconds: CPU time for one item, so that a busy machine changes no result.
    """
    results: dict[int, Any] = {}
    if not items:
        return []
    workers = min(len(os.sched_getaffinity(0)), -(-len(items) // _CHUNK))
    os.environ["PYTHONHASHSEED"] = "0"  # for the workers: SymPy's sets have one order there, and an answer one reading
    context = multiprocessing.get_context("spawn")  # a fork would copy Polars' threads halfway through whatever they do
    chunks = [list(range(start, min(start + _CHUNK, len(items)))) for start in range(0, len(items), _CHUNK)]
    with ProcessPool(max_workers=workers, context=context, initializer=_set_up_worker) as pool:
        while chunks:
            futures: list[tuple[list[int], Future[list[Any]]]] = [
                (chunk, pool.schedule(_each, args=[function, [items[i] for i in chunk], seconds])) for chunk in chunks
            ]
            chunks = []
            for chunk, future in futures:
                try:
                    results |= zip(chunk, future.result(), strict=True)
                except ProcessExpired:  # one of the chunk killed its worker: ask for each alone
                    if len(chunk) == 1:
                        results[chunk[0]] = None
                    else:
                        chunks += [[i] for i in chunk]
    return [results[i] for i in range(len(items))]


_CACHE = {"answer": pl.String, "canonical": pl.String}


def _identity(seconds: float) -> str:
    """Names all that a verdict depends on: with another time limit or another version it is asked for again."""
    libraries = {name: version(name) for name in ("math-verify", "latex2sympy2-extended", "sympy")}
    return digest({"code": code_digest("prepare.answers"), "seconds": seconds, **libraries})


def _kept(file: Path) -> dict[str, str | None]:
    try:
        return dict(pl.read_parquet(file, schema=_CACHE).iter_rows())
    except (pl.exceptions.PolarsError, OSError):  # none yet, or damaged: the answers can be read again
        return {}


def _parsed(answer: str) -> tuple[list[Any], list[Any]]:
    """A boxed answer as gold and as a completion's answer: open-r1's settings for each."""
    from latex2sympy2_extended import NormalizationConfig  # SymPy takes a second to import: only workers pay
    from math_verify import LatexExtractionConfig, parse

    text = f"\\boxed{{{answer}}}"
    strict = LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            nits=False, malformed_operators=False, basic_latex=True, boxed="all", units=True
        ),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    gold = parse(text, extraction_mode="first_match", parsing_timeout=None)
    return gold, parse(text, extraction_mode="first_match", extraction_config=[strict], parsing_timeout=None)


def _set_up_worker() -> None:
    die_with_parent()  # no worker outlives the stage, however that ends
    resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, _WORKER_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.WARNING)  # math-verify warns on every call that it has no time limit of its own
    from openr1_repro.verify import speed_up_math_verify

    speed_up_math_verify()


def _each(function: Any, items: list[Any], seconds: float) -> list[Any]:
    results = []
    for item in items:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF has no handler: it ends the process, whatever runs
        try:
            results.append(function(item))
        except Exception:  # whatever SymPy raises on odd input
            results.append(None)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return results
