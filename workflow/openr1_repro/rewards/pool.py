"""A pool of worker processes that verify answers, each with a hard limit in CPU time and memory.

Verifying never waits for anything, so its CPU time is its time: a verdict does not depend on what else the machine
does. The batch as a whole is bounded by the clock.

Workers are forked from a nursery: one process that has imported SymPy and read some LaTeX, and nothing else, so that a
killed worker is replaced in milliseconds by one that is warm. Each has two pipes of its own and gets its next items when
it has answered the last, so that killing one disturbs nothing.

Why not a library's pool: a start by multiprocessing imports the trainer's main module, and with it torch, into every
worker; a fork of the trainer takes along torch's threads and the GPU; and workers that share a queue share its lock,
which a killed one can hold.
"""

import atexit
import contextlib
import json
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # run by its path, not imported; this names it as code that a result depends on
    from openr1_repro import verify  # noqa: F401

logger = logging.getLogger(__name__)

CHUNK = 8
"""Items that a worker gets at a time: enough that it seldom waits for the next."""


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


Gold = tuple[str, str]
"""A gold and the rule that reads it."""


class _Worker:
    """One process, once the nursery has told its ``pid``; ``indices`` are the items it has, the first the one it is at."""

    def __init__(self, stdin: int, stdout: int):
        self.stdin, self.stdout = stdin, stdout
        self.pid: int | None = None
        self.handle = -1
        self.received = b""
        self.indices: deque[int] = deque()
        self.golds: set[Gold] = set()
        self.gold: Gold | None = None
        self.started = self.deadline = self.cpu_limit = 0.0

    def born(self, pid: int) -> None:
        """Take a handle, which names this process even if it ends and its number is given to another."""
        try:
            self.handle = os.pidfd_open(pid)
        except ProcessLookupError:  # ended already; its pipe will say so
            return
        self.pid = pid

    def cpu_seconds(self) -> float:
        """CPU time of the process so far; infinite if it has ended."""
        try:
            with open(f"/proc/{self.pid}/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return math.inf
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def allow(self, seconds: float) -> None:
        """Give it ``seconds`` of CPU time from now; `deadline` is the earliest moment at which they can be used up."""
        self.started = time.monotonic()
        self.cpu_limit = self.cpu_seconds() + seconds
        self.deadline = self.started + seconds

    def end(self) -> None:
        if self.handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
        os.close(self.stdin)  # one that is not born yet ends when it finds this closed
        os.close(self.stdout)


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
        self.unborn: deque[_Worker] = deque()
        self._start_nursery()
        for _ in range(workers):
            self._start()
        atexit.register(self.close)

    def _start_nursery(self) -> None:
        self.control, other = socket.socketpair()
        with other:
            self.nursery = subprocess.Popen(
                [
                    sys.executable, "-P", str(Path(__file__).parents[1] / "verify.py"), str(other.fileno()),
                    str(os.getpid()), str(self.timeout / 2), str(self.memory_mb),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                # A fixed order of SymPy's sets, so that the same text gets the same verdict in every worker and run.
                env={**os.environ, "PYTHONHASHSEED": "0"},
                start_new_session=True,
            )  # fmt: skip
        self.selector.register(self.control, selectors.EVENT_READ)
        self.delivered = False

    def _end_nursery(self) -> int:
        """End it, and with it all workers that it has forked; return its exit status."""
        self.selector.unregister(self.control)
        self.control.close()
        self.nursery.kill()
        return self.nursery.wait()

    def _start(self) -> None:
        """Ask for a worker; `_deliver` hears of it."""
        (inner_in, stdin), (stdout, inner_out) = os.pipe(), os.pipe()
        worker = _Worker(stdin, stdout)
        with contextlib.suppress(OSError):  # a nursery that has died: `_deliver` will see it
            socket.send_fds(self.control, [b"+"], [inner_in, inner_out])
        os.close(inner_in)
        os.close(inner_out)
        self.workers.append(worker)
        self.unborn.append(worker)

    def _deliver(self) -> None:
        """Read the nursery's reply; start another, with other workers, if it has died."""
        try:
            reply = self.control.recv(8, socket.MSG_WAITALL)
        except OSError:
            reply = b""
        if reply:
            self.delivered = True
            worker = self.unborn.popleft()
            if worker in self.workers:  # not stopped before it was born
                worker.born(int.from_bytes(reply, "little"))
                self.selector.register(worker.stdout, selectors.EVENT_READ, worker)
            return
        code, delivered = self._end_nursery(), self.delivered
        unborn = list(self.unborn)
        self.unborn.clear()
        self._start_nursery()
        for worker in unborn:  # the others' pipes tell that they are gone
            self.workers.remove(worker)
            worker.end()
            self._start()
        if not delivered:
            raise RuntimeError(f"the verification workers did not start (exit status {code}; see the log above)")

    def _stop(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        if worker not in self.unborn:
            self.selector.unregister(worker.stdout)
        worker.end()

    def close(self) -> None:
        """End the workers. Harmless when repeated, and in a process forked from the owner."""
        if os.getpid() != self.owner or not self.workers:
            return
        with self.lock:
            for worker in list(self.workers):
                self._stop(worker)
            self._end_nursery()
        atexit.unregister(self.close)

    def check(self, items: list[Item]) -> list[Result]:
        """Verify every item, in at most ``batch_timeout`` seconds; one that overruns or crashes counts as wrong.

        Raises:
            RuntimeError: if the workers cannot start (their own message is on stderr).
        """
        with self.lock:
            return self._check(items)

    def _check(self, items: list[Item]) -> list[Result]:
        if not items:
            return []
        if not self.workers:
            raise RuntimeError("the reward engine is closed")
        golds = [(item.gold, item.rule) for item in items]
        results: list[Result | None] = [None] * len(items)
        waiting: dict[Gold, deque[int]] = {}
        for index, gold in enumerate(golds):
            waiting.setdefault(gold, deque()).append(index)
        unread: dict[Gold, str | None] = {}  # golds that cannot be read, and the fault
        left = len(items)
        end = time.monotonic() + self.batch_timeout

        def settle(index: int, result: Result) -> None:
            nonlocal left
            results[index] = result
            left -= 1

        def finish(worker: _Worker, verdict: bool | None, fault: str | None) -> None:
            index = worker.indices.popleft()
            item, gold, seconds = items[index], golds[index], time.monotonic() - worker.started
            if fault:
                at_gold = gold not in worker.golds
                verdict = None if at_gold else verdict
                logger.warning(
                    "%s after %.1f s%s; counts as %s; gold: %s; text: %s",
                    fault, seconds, " reading the gold" if at_gold else "", "wrong" if verdict is False else verdict,
                    _excerpt(item.gold), _excerpt(item.text),
                )  # fmt: skip
            settle(index, Result(verdict, seconds, fault))
            if verdict is None:
                unread[gold] = fault
                for other in waiting.pop(gold, ()):
                    settle(other, Result(None, 0.0, fault))

        def give_back(worker: _Worker) -> None:
            for index in reversed(worker.indices):
                if golds[index] in unread:
                    settle(index, Result(None, 0.0, unread[golds[index]]))
                else:
                    waiting.setdefault(golds[index], deque()).appendleft(index)
            worker.indices.clear()

        def replace(worker: _Worker, fault: str, verdict: bool | None = False) -> None:
            if worker.indices:
                finish(worker, verdict, fault)
                give_back(worker)
            self._stop(worker)
            self._start()

        def send(worker: _Worker) -> None:
            for _ in range(max(1, min(CHUNK, left // (2 * len(self.workers))))):
                if waiting:
                    worker.gold = self._next_gold(worker, waiting)
                    worker.indices.append(waiting[worker.gold].popleft())
                    if not waiting[worker.gold]:
                        del waiting[worker.gold]
            message = [[items[index].rule, items[index].gold, items[index].text] for index in worker.indices]
            worker.allow(self.timeout)
            try:
                _write(worker.stdin, json.dumps(message).encode() + b"\n")
            except BrokenPipeError:  # it has ended, as its other pipe is about to tell
                give_back(worker)

        while left:
            now = time.monotonic()
            if now >= end:
                break
            for worker in list(self.workers):
                if worker.pid is None:
                    continue
                if not worker.indices and waiting:
                    send(worker)
                elif worker.indices and now >= worker.deadline:
                    if (left_cpu := worker.cpu_limit - worker.cpu_seconds()) <= 0:
                        replace(worker, "timeout")
                    else:
                        worker.deadline = now + max(left_cpu, 0.01)
            busy = [worker.deadline for worker in self.workers if worker.indices]
            for key, _ in self.selector.select(max(0.0, min([*busy, end]) - time.monotonic())):
                if key.data is None:
                    self._deliver()
                    continue
                worker = key.data
                received = os.read(worker.stdout, 65536)
                if not received:
                    replace(worker, "crash")
                    continue
                *lines, worker.received = (worker.received + received).split(b"\n")
                for line in map(json.loads, lines):
                    if line == "gold":  # read within its time; the answer gets its own
                        worker.golds.add(golds[worker.indices[0]])
                    elif line == "grown":  # it ends, before the next item
                        give_back(worker)
                    else:
                        finish(worker, *line)
                if worker.indices:
                    worker.allow(self.timeout)
        for worker in list(self.workers):
            if worker.indices:
                replace(worker, "batch timeout", None)
        if unjudged := results.count(None):
            logger.warning("%d of %d answers were not judged in %.0f s", unjudged, len(items), self.batch_timeout)
        return [result or Result(None, 0.0, "batch timeout") for result in results]

    def _next_gold(self, worker: _Worker, waiting: dict[Gold, deque[int]]) -> Gold:
        # A worker keeps to one gold while it lasts, so that a group's gold is read, and its repeated answers compared,
        # in one place; when none is untouched, it helps with the one that has most left.
        if worker.gold in waiting:
            return worker.gold
        taken = {other.gold for other in self.workers if other is not worker}
        return next((gold for gold in waiting if gold not in taken), None) or max(
            waiting, key=lambda g: len(waiting[g])
        )


def _write(descriptor: int, message: bytes) -> None:
    view = memoryview(message)
    while view:
        view = view[os.write(descriptor, view) :]


def _excerpt(text: str) -> str:
    return repr(text) if len(text) <= 2000 else f"{text[:1000]!r} … {text[-1000:]!r} ({len(text)} characters)"
