"""lighteval's own judgement of single texts, in worker processes that can be killed.

lighteval guards its parsing by an alarm signal, which does nothing while SymPy or a big integer stays inside C code; and it judges
one text after the other. Here every distinct text is judged once, several at a time, under a hard limit of time and memory. All
limits count processor time, lighteval's own too, so that a busy machine changes no verdict.
"""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pebble
from lighteval.metrics.metrics import Metrics
from lighteval.metrics.metrics_sample import PassAtK, SamplingMetric
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc, SamplingMethod

from openr1_repro.stage import UserError


@dataclass(frozen=True)
class Claim:
    """One thing to judge."""

    metric: str
    """A name in lighteval's ``Metrics``."""
    num_choices: int
    """Multiple choice: the number of options, and ``gold`` is a letter; else 0."""
    gold: str
    text: str
    """The answer's text, without reasoning."""

    def key(self) -> str:
        """What the verdict is stored under."""
        versions = [importlib.metadata.version(name) for name in ("lighteval", "latex2sympy2_extended", "sympy")]
        return hashlib.sha256(json.dumps([versions, asdict(self)]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Verdict:
    """What lighteval said."""

    score: float
    extracted: str | None
    """The answer that the metric read out of the text, in its normal form; None: none."""
    failure: str | None = None
    """Why no verdict came, and the score is 0: ``timeout``, or the exception."""


def doc_of(claim_gold: str, num_choices: int, query: str = "") -> Doc:
    """The claim's gold as lighteval holds it."""
    if num_choices:
        letters = list(ascii_uppercase[:num_choices])
        return Doc(query=query, choices=letters, gold_index=letters.index(claim_gold))
    return Doc(query=query, choices=[claim_gold], gold_index=0)


def metric_named(name: str) -> Any:
    """The lighteval metric that judges one sample.

    Raises:
        UserError: if lighteval has none of that name, or it is not one that judges generated texts by themselves.
    """
    if name not in Metrics.__members__:
        raise UserError(f"metric: lighteval has no metric {name!r}; see lighteval.metrics.metrics.Metrics")
    metric = Metrics[name].value
    if isinstance(metric.sample_level_fn, PassAtK):
        metric = Metrics[name](sample_params={"k": 1, "n": 1})
    elif isinstance(metric.sample_level_fn, SamplingMetric) or metric.category != SamplingMethod.GENERATIVE:
        raise UserError(f"metric: {name!r} does not judge single samples; take pass_at_k_math or another pass_at_k_*")
    return metric


def judge(claim: Claim) -> Verdict:
    """lighteval's verdict on one text, in this process and without a hard limit."""
    metric = metric_named(claim.metric).sample_level_fn
    doc = doc_of(claim.gold, claim.num_choices)
    response = ModelResponse(text=[claim.text], text_post_processed=[claim.text])
    docs = [doc]
    if isinstance(metric, PassAtK):  # it judges a copy of the document: look at that for what was extracted
        inner = metric.compute_score

        def watched(doc: Doc, model_response: ModelResponse) -> float:
            docs.append(doc)
            return inner(doc=doc, model_response=model_response)

        metric.compute_score = watched
    score = float(metric.compute(doc=doc, model_response=response))
    extracted = (docs[-1].specific or {}).get("extracted_predictions") or [None]
    return Verdict(score, extracted[0])


def judge_all(claims: Iterable[Claim], store: Path, workers: int, timeout: float, memory: int) -> dict[Claim, Verdict]:
    """A verdict for every claim; those in ``store`` (a JSON-lines file) are not judged again.

    Args:
        claims: in any order; equal ones are judged once.
        store: verdicts of earlier runs, appended to.
        workers: processes.
        timeout: seconds of processor time after which a worker is killed, and the claim counts as wrong.
        memory: MiB that one verdict may take on top of what the worker holds.
    """
    verdicts: dict[Claim, Verdict] = {}
    stored: dict[str, Verdict] = {}
    if store.exists():
        for line in store.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # else torn by a kill
                row = json.loads(line)
                key = row.pop("key")
                stored[key] = Verdict(**row)
    todo = []
    for claim in dict.fromkeys(claims):
        verdict = stored.get(claim.key())
        if verdict is None:
            todo.append(claim)
        else:
            verdicts[claim] = verdict
    if not todo:
        return verdicts
    store.parent.mkdir(parents=True, exist_ok=True)
    draft = "".join(json.dumps({"key": key, **asdict(verdict)}) + "\n" for key, verdict in stored.items())
    store.write_text(draft, encoding="utf-8")  # without a torn line
    pool = pebble.ProcessPool(
        max_workers=workers,
        context=multiprocessing.get_context("fork"),  # importing lighteval takes seconds
        initializer=_prepare_worker,
        initargs=(memory,),
    )
    with pool, store.open("a", encoding="utf-8") as stream:
        # the second limit, of time on the wall, is for what sleeps instead of working
        waiting: dict[Any, Claim] = {
            pool.schedule(_judge_within, args=[claim, timeout], timeout=60 + 20 * timeout): claim for claim in todo
        }
        for future in concurrent.futures.as_completed(waiting):
            claim = waiting[future]
            try:
                verdict = future.result()
            except concurrent.futures.TimeoutError:
                verdict = Verdict(0.0, None, "timeout")
            except pebble.ProcessExpired as error:
                over = error.exitcode in (-signal.SIGXCPU, signal.SIGXCPU)
                verdict = Verdict(0.0, None, "timeout" if over else f"worker died: {error}")
            except Exception as error:  # whatever SymPy raises: MemoryError, RecursionError
                verdict = Verdict(0.0, None, f"{type(error).__name__}: {error}")
            verdicts[claim] = verdict
            stream.write(json.dumps({"key": claim.key(), **asdict(verdict)}) + "\n")
            if verdict.failure:
                print(f"no verdict ({verdict.failure}), counted as wrong: {claim.text[-200:]!r}", flush=True)
    return verdicts


def _prepare_worker(mebibytes: int) -> None:
    """Let this process take so much on top of what it inherits, and let lighteval's alarms count its processor time."""
    with open("/proc/self/statm") as stream:
        pages = int(stream.read().split()[5])  # data + stack
    limit = pages * os.sysconf("SC_PAGE_SIZE") + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # lighteval.utils.timeout looks these up in the module at every call
    signal.SIGALRM = signal.SIGPROF  # type: ignore[misc]
    signal.alarm = _alarm_by_processor_time


def _alarm_by_processor_time(seconds: int) -> int:
    return math.ceil(signal.setitimer(signal.ITIMER_PROF, seconds)[0])


def _judge_within(claim: Claim, seconds: float) -> Verdict:
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds), resource.RLIM_INFINITY))
    return judge(claim)
