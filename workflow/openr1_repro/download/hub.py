"""Fetching from a hub: starts the process that talks to it (``client.py``), watches what arrives, and ends it when
nothing does."""

import collections
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openr1_repro.download.files import File, SourceError, in_words
from openr1_repro.download.settings import DownloadSettings


def offline() -> bool:
    """Whether the user wants no connection opened: ``HF_HUB_OFFLINE``, or its older name."""
    wish = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return wish.upper() in ("1", "ON", "YES", "TRUE")


def _environment(settings: DownloadSettings, with_token: bool) -> dict[str, str]:
    """Both clients: bounded waits, no retries of their own where they would hide them, no bars of their own."""
    answer = str(max(1, round(settings.answer_seconds)))
    silence = str(round(settings.stall_seconds) + 5)  # of one connection; that of all of them is watched here
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TQDM_DISABLE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # its downloads cannot be resumed, and mirrors do not carry it
        "HF_HUB_ETAG_TIMEOUT": answer,
        "HF_HUB_DOWNLOAD_TIMEOUT": silence,
        "MODELSCOPE_API_CONNECT_TIMEOUT": answer,
        "MODELSCOPE_API_TIMEOUT": answer,
        "MODELSCOPE_REPO_TREE_PAGE_TIMEOUT_SECONDS": answer,
        "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
        "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "0",
        "MODELSCOPE_DOWNLOAD_TIMEOUT": silence,
        "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": str(7 * 24 * 3600),
        "MODELSCOPE_DOWNLOAD_FILE_LOCK": "false",  # the working folder has a lock already
    }
    if offline():  # also for ModelScope's client, which has no such variable
        environment["HF_HUB_OFFLINE"] = "1"
    if not with_token:
        environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    return environment


class _Client:
    """The process, as a context: killed when left."""

    def __init__(self, module: str, environment: dict[str, str], work: Path):
        self.trouble = work / "client.log"
        with open(self.trouble, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"openr1_repro.download.{module}"], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, close_fds=False,
            )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.trouble.unlink(missing_ok=True)

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is what receive() will say

    def receive(self, seconds: float) -> dict[str, Any]:
        """Its next message; empty if there is none in time.

        Raises:
            SourceError: if it reports a failure, or has ended.
        """
        try:
            line = self.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return {}
        if not line:
            last = (self.trouble.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]
            raise SourceError(f"its client ended with status {self.process.wait()}: {last}")
        message = json.loads(line)
        if "error" in message:
            raise SourceError(message["error"], again=message.get("again", False))
        return message


def fetch(
    module: str,
    order: dict[str, Any],
    settings: DownloadSettings,
    with_token: bool,
    choose: Callable[[list[File]], list[File]],
    name: str,
) -> tuple[str, list[dict[str, Any]]]:
    """Fetch what ``choose`` picks of a repository's files into ``<order work>/files/``.

    ``module`` is the client's (huggingface, modelscope); ``order`` as in ``client.Order``; ``name`` stands at the progress
    bar. Gives the commit, and path, size and SHA-256 of every file.

    Raises:
        SourceError: if the hub refuses, does not answer in ``settings.answer_seconds``, sends next to nothing for
            ``settings.stall_seconds``, or sends wrong bytes.
    """
    limits = {"workers": settings.workers, "retries": settings.retries, "max_wait_seconds": settings.max_wait_seconds}
    with _Client(module, _environment(settings, with_token), Path(order["work"])) as client:
        client.send(order | limits)
        from tqdm import tqdm  # here, because the client starts meanwhile

        message = client.receive(120)  # until "ready": starting Python on a busy machine is not the hub's fault
        deadline = time.monotonic() + settings.answer_seconds
        while "listing" not in (message := client.receive(deadline - time.monotonic())):
            if not message:
                raise SourceError(f"no answer in {settings.answer_seconds:g} s")
            deadline = time.monotonic() + message.get("wait", 0) + settings.answer_seconds
        commit = message["commit"]
        chosen = choose([File(**file) for file in message["listing"]])
        total = sum(file.size for file in chosen)
        client.send({"fetch": [dataclasses.asdict(file) for file in chosen]})
        with tqdm(
            desc=name, total=total, unit="B", unit_scale=True, mininterval=0.2 if sys.stderr.isatty() else 10, delay=0.5
        ) as bar:
            hashes = _watch(client, settings, bar)
        return commit, [{"path": f.path, "size": f.size, "sha256": hashes[f.path]} for f in chosen]


def _watch(client: _Client, settings: DownloadSettings, bar: Any) -> dict[str, str]:
    """Follow the client to its end; gives the SHA-256 of every file.

    Raises:
        SourceError: as in ``fetch``.
    """
    hashes: dict[str, str] = {}
    arrived = 0
    samples = collections.deque([(time.monotonic(), 0)])  # (when, bytes by then), over the last stall_seconds
    while not (message := client.receive(0.25)).get("end"):
        now = time.monotonic()
        if "wait" in message:
            samples = collections.deque([(now + message["wait"], arrived)])
        elif "done" in message:
            hashes[message["done"]] = message["sha256"]
            samples = collections.deque([(now, arrived)])
        elif "bytes" in message:
            arrived = message["bytes"]
            bar.update(arrived - bar.n)
        if now - samples[-1][0] > 0.25:
            samples.append((now, arrived))
        while len(samples) > 1 and now - samples[1][0] >= settings.stall_seconds:
            samples.popleft()
        if now - samples[0][0] >= settings.stall_seconds:
            gained = max(0, arrived - samples[0][1])
            if gained <= settings.stall_bytes_per_second * settings.stall_seconds:
                raise SourceError(f"stalled: {in_words(gained)} in {settings.stall_seconds:g} s")
    return hashes
