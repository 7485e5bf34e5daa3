"""A pool of worker processes that verify answers, each with a hard limit in CPU time and memory.

Verifying never waits for anything, so its CPU time is its time: a verdict does not depend on what else the machine
does. The batch as a whole is bounded by the clock.

Why not a library's pool: a start by multiprocessing imports the trainer's main module, and with it torch, into every
worker; and a pool whose workers share a queue has locks that a killed worker can hold. Here each worker has two pipes
of its own and gets its next item when it has answered the last, so that killing one disturbs nothing.
"""

import atexit
import json
import logging
import math
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # run by its path, not imported; this names it as code that a result depends on
    from openr1_repro.rewards import verify  # noqa: F401

logger = logging.getLogger(__name__)

START_TIMEOUT = 120.0
"""CPU seconds that a worker may take to import SymPy and report."""


@dataclass(frozen=True)
class Item:
    """A completion's ``text`` to hold against ``gold``; ``rule`` is one of `verify.ANSWER`."""

    gold: str
    text: str
    rule: str = "accuracy"


@dataclass(frozen=True)
class Result:
    """``verdict`` None: the gold cannot be read, or the batch's time was over. ``fault``: why nothing was found."""

    verdict: bool | None
    seconds: float = 0.0
    fault: str | None = None


class _Worker:
    """One process; ``index`` is the item it is at, ``golds`` those that it has read."""

    def __init__(self, step_seconds: float, memory_mb: int):
        command = [sys.executable, "-P", str(Path(__file__).with_name("verify.py"))]
        self.process = subprocess.Popen(
            [*command, str(step_seconds), str(memory_mb), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # A fixed order of SymPy's sets, so that the same text gets the same verdict in every worker and run.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.ready = False
        self.received = b""
        self.index: int | None = None
        self.gold: tuple[str, str] | None = None
        self.golds: set[tuple[str, str]] = set()
        self.started = self.deadline = self.cpu_limit = 0.0

    def cpu_seconds(self) -> float:
        """CPU time of the process so far; infinite if it has ended."""
        try:
            with open(f"/proc/{self.process.pid}/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
        except FileNotFoundError:
            return math.inf
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def allow(self, seconds: float) -> None:
        """Give it ``seconds`` of CPU time from now; `deadline` is the earliest moment at which they can be used up."""
        self.cpu_limit = self.cpu_seconds() + seconds
        self.deadline = time.monotonic() + seconds

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


class Pool:
    """``workers`` processes that live until `close` or the end of the program; one that ends before is replaced."""

    def __init__(self, workers: int, timeout: float, memory_mb: int, batch_timeout: float):
        self.timeout = timeout
        self.memory_mb = memory_mb
        self.batch_timeout = batch_timeout
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.selector = selectors.DefaultSelector()
        self.workers: list[_Worker] = []
        for _ in range(workers):
            self._start()
        atexit.register(self.close)

    def _start(self) -> None:
        worker = _Worker(self.timeout / 2, self.memory_mb)
        worker.allow(START_TIMEOUT)
        self.workers.append(worker)
        self.selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def _stop(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        self.selector.unregister(worker.stdout)
        worker.end()

    def close(self) -> None:
        """End the workers. Harmless when repeated, and in a process forked from the owner."""
        if os.getpid() != self.owner:
            return
        with self.lock:
            for worker in list(self.workers):
                self._stop(worker)
        atexit.unregister(self.close)

    def check(self, items: list[Item]) -> list[Result]:
        """Verify every item, in at most ``batch_timeout`` seconds; one that overruns or crashes counts as wrong.

        Raises:
            RuntimeError: if a worker cannot start (its own message is on stderr).
        """
        with self.lock:
            return self._check(items)

    def _check(self, items: list[Item]) -> list[Result]:
        if not items:
            return []
        if not self.workers:
            raise RuntimeError("the reward engine is closed")
        results: list[Result | None] = [None] * len(items)
        waiting: dict[tuple[str, str], deque[int]] = {}
        for index, item in enumerate(items):
            waiting.setdefault((item.gold, item.rule), deque()).append(index)
        left = len(items)
        end = time.monotonic() + self.batch_timeout

        def finish(worker: _Worker, verdict: bool | None, fault: str | None) -> None:
            nonlocal left
            assert worker.index is not None
            item, seconds = items[worker.index], time.monotonic() - worker.started
            if fault:
                at_gold = worker.gold not in worker.golds
                verdict = None if at_gold else verdict
                logger.warning(
                    "%s after %.1f s%s; counts as %s; gold: %s; text: %s",
                    fault, seconds, " reading the gold" if at_gold else "", "wrong" if verdict is False else verdict,
                    _excerpt(item.gold), _excerpt(item.text),
                )  # fmt: skip
            results[worker.index] = Result(verdict, seconds, fault)
            left -= 1
            worker.index = None
            if verdict is None and worker.gold is not None:
                for index in waiting.pop(worker.gold, ()):
                    results[index] = Result(None, 0.0, fault)
                    left -= 1

        def replace(worker: _Worker, fault: str, verdict: bool | None = False) -> None:
            if not worker.ready:
                code = worker.process.poll()
                self._stop(worker)
                self._start()
                raise RuntimeError(f"a verification worker did not start ({fault}, exit status {code})")
            if worker.index is not None:
                finish(worker, verdict, fault)
            self._stop(worker)
            self._start()

        while left:
            now = time.monotonic()
            for worker in list(self.workers):
                if worker.ready and worker.index is None and waiting:
                    gold = self._next_gold(worker, waiting)
                    worker.index = waiting[gold].popleft()
                    if not waiting[gold]:
                        del waiting[gold]
                    worker.gold, worker.started = gold, now
                    worker.allow(self.timeout)
                    item = items[worker.index]
                    message = json.dumps([item.gold, item.text, item.rule]).encode() + b"\n"
                    try:
                        _write(worker.stdin.fileno(), message)
                    except BrokenPipeError:  # it had grown and ended by itself; the item goes back
                        waiting.setdefault(gold, deque()).appendleft(worker.index)
                        worker.index = None
                        replace(worker, "ended")
                elif (worker.index is not None or not worker.ready) and now >= worker.deadline:
                    if (left_cpu := worker.cpu_limit - worker.cpu_seconds()) <= 0:
                        replace(worker, "timeout")
                    else:
                        worker.deadline = now + max(left_cpu, 0.01)
            if now >= end:
                break
            busy = [w.deadline for w in self.workers if w.index is not None or not w.ready]
            for key, _ in self.selector.select(max(0.0, min([*busy, end]) - now)):
                worker = key.data
                received = os.read(worker.stdout.fileno(), 65536)
                if not received:
                    replace(worker, "crash")
                    continue
                *lines, worker.received = (worker.received + received).split(b"\n")
                for line in map(json.loads, lines):
                    if line == "ready":
                        worker.ready = True
                    elif line == "gold":  # read within its time; the answer gets its own
                        worker.golds.add(worker.gold)
                        worker.allow(self.timeout)
                    else:
                        finish(worker, *line)
        for worker in list(self.workers):
            if worker.index is not None:
                replace(worker, "batch timeout", None)
        if left := results.count(None):
            logger.warning("%d of %d answers were not judged in %.0f s", left, len(items), self.batch_timeout)
        return [result or Result(None, 0.0, "batch timeout") for result in results]

    def _next_gold(self, worker: _Worker, waiting: dict[tuple[str, str], deque[int]]) -> tuple[str, str]:
        # A worker keeps to one gold while it lasts, so that a group's gold is read, and its repeated answers compared,
        # in one place; when none is untouched, it helps with the one that has most left.
        if worker.gold in waiting:
            return worker.gold
        taken = {w.gold for w in self.workers if w is not worker}
        return next((g for g in waiting if g not in taken), None) or max(waiting, key=lambda g: len(waiting[g]))


def _write(descriptor: int, message: bytes) -> None:
    view = memoryview(message)
    while view:
        view = view[os.write(descriptor, view) :]


def _excerpt(text: str) -> str:
    return repr(text) if len(text) <= 2000 else f"{text[:1000]!r} … {text[-1000:]!r} ({len(text)} characters)"
