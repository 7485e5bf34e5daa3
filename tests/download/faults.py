"""Hubs that misbehave, one fault at a time: what the user reads, what is left behind, how long it takes.

``python -m tests.download.faults`` runs every row and writes the table of docs/download.md; test_faults.py checks the rows.
"""

import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import pytest

from .conftest import ROOT, Job, model_files, repository
from .hubs import Blob, Fault, Handler, Hubs, Repository

SHARD = "model-00002-of-00003.safetensors"
FILES = model_files()
WANTED = {path: data for path, data in FILES.items() if path != "README.md"}


@dataclass
class Row:
    """One fault: ``arrange(faulty hub, job)`` switches it on at hub ``at``, which is asked first; the other hub is sound.

    ``everything``: take every file, whatever its name. ``gives``: where the asset comes from in the end ("same", "other", None); ``reads``: what the user reads (a pattern);
    ``after``, ``within``: how many seconds it takes at least and at most; ``mounts``: it needs a user who may mount a disk.
    """

    what: str
    at: str
    arrange: Callable[[Hubs, Job], None]
    reads: str
    gives: str | None = "other"
    after: float = 0
    within: float = 90
    everything: bool = False
    mounts: bool = False
    slow: bool = False


@dataclass
class Outcome:
    """What came of it."""

    said: str
    source: str | None
    seconds: float
    left: str
    files: dict[str, bytes] = field(repr=False)


# --- faults


def answer(status: int, headers: dict[str, str] | None = None) -> Callable[[Handler, Blob], None]:
    return lambda handler, blob: handler.send_json(
        {"error": "as asked", "Code": status, "Message": "as asked"}, status, headers
    )


def later(seconds: float) -> Callable[[Handler, Blob], None]:
    """429 with a Retry-After that is a date."""
    return lambda handler, blob: answer(429, {"Retry-After": formatdate(time.time() + seconds, usegmt=True)})(
        handler, blob
    )


def instead(change: Callable[[bytes], bytes], **how: object) -> Callable[[Handler, Blob], None]:
    """Send a changed file as if it were the file."""

    def do(handler: Handler, blob: Blob) -> None:
        assert isinstance(blob.source, bytes)
        other = Repository({handler.note.path: Blob(change(blob.source))})
        handler.send_blob(other, handler.note.path, {}, **how)  # type: ignore[arg-type]

    return do


def endless(handler: Handler, blob: Blob) -> None:
    """A body without a length that never ends."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(bytes(2**16))


def endless_list(handler: Handler, blob: Blob) -> None:
    """A listing that goes on for ever, as fast as the line allows."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(b'{"Code": 200, "sha": "' + b"c0ffeec0" * 5 + b'", "siblings": [')
    while True:
        handler.wfile.write(b'{"rfilename": "config.json", "size": 2}, ' * 2**14)


def drip(handler: Handler, blob: Blob) -> None:
    """Ten bytes a second."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(blob.size))
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(bytes(1))
        time.sleep(0.1)


def page(handler: Handler, blob: Blob) -> None:
    """A portal's page where JSON is expected."""
    body = b"<html>Please sign in to this network</html>"
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def loop(handler: Handler, blob: Blob) -> None:
    handler.send_empty(302, {"Location": handler.path})


def wrong_etag(handler: Handler, blob: Blob) -> None:
    repo = handler.server.hubs.repositories["models/org/tiny"]
    handler.redirect(repo, handler.note.path, {"X-Repo-Commit": repo.commit, "X-Linked-Etag": '"' + "0" * 64 + '"'})


def moved(handler: Handler, blob: Blob) -> None:
    """The branch moves to another commit, with other bytes, at this moment."""
    repo = handler.server.hubs.repositories["models/org/tiny"]
    repo.files, repo.commit = repository(FILES | {SHARD: bytes(300_000)}).files, "d" * 40
    path = handler.note.path
    handler.send_blob(repo, path, {"X-Repo-Commit": repo.commit, "ETag": '"x"'})


def on(route: str, do: Callable, path: str = "", **more: int) -> Callable[[Hubs, Job], None]:
    return lambda hub, job: hub.faults.append(Fault(route, do, path, **more))


def listed(name: str, **said: object) -> Callable[[Hubs, Job], None]:
    """The listing says this of a file."""

    def arrange(hub: Hubs, job: Job) -> None:
        hub.repositories["models/org/tiny"].listed[name] = said

    return arrange


def named(name: str) -> Callable[[Hubs, Job], None]:
    """A file of this name is among the others."""
    return lambda hub, job: hub.repositories["models/org/tiny"].files.update({name: Blob(b"{}")})


def address(url: str) -> Callable[[Hubs, Job], None]:
    def arrange(hub: Hubs, job: Job) -> None:
        job.download[f"{job.asset['sources'][0]}_endpoint"] = url

    return arrange


def only(files: dict[str, bytes]) -> Callable[[Hubs, Job], None]:
    return lambda hub, job: hub.repositories.update({"models/org/tiny": repository(files)})


@functools.cache
def can_mount() -> bool:
    """Whether this user may mount a disk of a size of its own."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


needs_mount = pytest.mark.skipif(not can_mount(), reason="this user may not mount a disk")


def fills(hub: Hubs, job: Job) -> None:
    """The asset's folder is a disk of 2 MB, which something else fills up when the second shard is asked for."""
    job.output.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", job.output], check=True)

    def fill(handler: Handler, blob: Blob) -> bool:
        with open(job.output / "other", "ab", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(4096)):
                pass
        return True

    hub.faults.append(Fault("storage", fill, SHARD))


def both(row: Row, **other: object) -> list[Row]:
    """The same at either hub; ``other`` is what differs at ModelScope."""
    return [row, Row(**{**vars(row), "at": "modelscope", **other})]  # type: ignore[arg-type]


H = "huggingface"
SOON = {"Retry-After": "1"}
ROWS = [
    *both(Row("nothing, for comparison", H, lambda hub, job: None, "tiny: 5 files", "same")),
    *both(Row("its name does not resolve", H, address("http://no-such-hub.invalid"), "its name cannot be resolved")),
    *both(Row("connection refused", H, address("http://127.0.0.1:9"), "connection refused")),
    *both(Row("hangs when asked for the list", H, on("list", Handler.hang), "no answer in 4 s")),
    *both(Row("hangs in a file", H, on("storage", Handler.hang, SHARD), "stalled: 0 B in 3 s")),
    *both(Row("slow drip: 10 bytes a second", H, on("storage", drip, SHARD), r"stalled: \d+ B in 3 s")),
    *both(Row("429 once, Retry-After: 1", H, on("storage", answer(429, SOON), SHARD, times=1), "tiny: 5 files", "same")),
    *both(Row("429 for the list once, Retry-After: 1", H, on("list", answer(429, SOON), times=1), "tiny: 5 files", "same")),
    *both(Row("429, Retry-After: 600", H, on("list", answer(429, {"Retry-After": "600"})), "429: .*asks to wait 600 s"), slow=True),
    *both(Row("429 without end", H, on("storage", answer(429, {"Retry-After": "0"}), SHARD), "429: too many requests"), slow=True),
    *both(Row("429 once, Retry-After a date in 3 s", H, on("storage", later(3), SHARD, times=1), "tiny: 5 files", "same", after=2)),
    *both(Row("429, Retry-After a date in 10 minutes", H, on("list", later(600)), r"429: .*asks to wait (600|59\d) s"), slow=True),
    *both(Row("500 twice, then well", H, on("storage", answer(500), SHARD, times=2), "tiny: 5 files", "same")),
    *both(Row("500 without end", H, on("storage", answer(500), SHARD), "500: the hub is in trouble"), slow=True),
    *both(Row("503 for the list without end", H, on("list", answer(503)), "503: the hub is in trouble"), slow=True),
    *both(Row("cut in the middle of a file, once", H, on("storage", instead(bytes, length=150_000), SHARD, times=1), "tiny: 5 files", "same")),
    *both(Row("connection reset at every file", H, on("storage", lambda h, b: h.cut()), "the connection broke")),
    *both(Row("wrong bytes, right length", H, on("storage", instead(lambda d: d[::-1]), SHARD), f"{SHARD}: wrong bytes")),
    *both(Row("wrong bytes in a small file", H, on("file", instead(lambda d: d[::-1]), "config.json"), "config.json: wrong bytes"), slow=True),
    *both(Row("file shorter than listed", H, on("storage", instead(lambda d: d[:-999]), SHARD), f"{SHARD}: (ended after|wrong length)")),
    *both(Row("file longer than listed", H, on("storage", instead(lambda d: d + d), SHARD), f"{SHARD}: (more bytes than|wrong length)")),
    *both(Row("endless file", H, on("storage", endless, SHARD), f"{SHARD}: (more bytes than|wrong length)")),
    Row("hash header contradicts the list", H, on("head", wrong_etag, SHARD), f"{SHARD}: announced with two hashes"),
    *both(Row("list has a wrong hash", H, listed(SHARD, sha256="0" * 64), f"{SHARD}: (announced with two hashes|wrong bytes)")),
    *both(Row("endless listing", H, on("list", endless_list), "its listing does not end")),
    *both(Row("redirects in a loop, for the list", H, on("list", loop), "redirects without end")),
    *both(Row("redirects in a loop, for a file", H, on("storage", loop, SHARD), "redirects without end")),
    Row("a listed file is missing", H, on("head", answer(404), SHARD), "404: no such repository, revision or file"),
    Row("a listed file is missing", "modelscope", on("file", answer(404), SHARD), "404: no such repository, revision or file"),
    Row("branch moves midway (hub ignores the commit)", H, on("head", moved, SHARD), "comes from commit dddd"),
    Row("branch moves midway", "modelscope", on("storage", moved, SHARD, times=1), f"{SHARD}: changed at the hub", "same"),
    *both(Row("401", H, on("list", answer(401)), "401: it wants a login"), slow=True),
    *both(Row("403, gated", H, on("list", answer(403, {"X-Error-Code": "GatedRepo"})), "403: access refused; a gated repository"), slow=True),
    *both(Row("no such repository", H, lambda hub, job: hub.repositories.clear(), "404: no such repository|401: it wants"), slow=True),
    *both(Row("a portal's page instead of JSON", H, on("list", page), "not a hub's answer"), slow=True),
    *both(Row("file named ../../evil.json", H, named("../../evil.json"), "hostile file name '../../evil.json'"), slow=True),
    *both(Row("file named /tmp/evil.json", H, named("/tmp/evil.json"), "hostile file name '/tmp/evil.json'"), slow=True),
    *both(Row("names that differ only in case", H, named("Config.json"), "hostile file names: 'config.json' and 'Config.json'"), slow=True),
    *both(Row("a file that is also a folder", H, named("config.json/x.json"), "hostile file names: 'config.json'", everything=True), slow=True),
    *both(Row("a file of 80 TB", H, listed(SHARD, size=8 * 10**13), "needs 80 TB, only .* are free"), slow=True),
    *both(Row("the disk fills in the middle of a file", H, fills, "the disk is full\n.*needs .*, only 0 B are free", gives=None, mounts=True)),
    *both(Row("a file of −1 bytes", H, listed(SHARD, size=-1), f"{SHARD}: absurd size -1"), slow=True),
    Row("a link in the repository", "modelscope", listed(SHARD, mode="40960"), f"{SHARD}: a link"),
    *both(Row("a part missing from the weights", H, only({k: v for k, v in FILES.items() if k != SHARD}), f"{SHARD} is missing"), slow=True),
    *both(Row("weights only as pickles", H, only({"config.json": b"{}", "pytorch_model.bin": b"x"}), "can run code when they are loaded"), slow=True),
]  # fmt: skip


def run(row: Row, folder: Path) -> Outcome:
    """The command, with the fault on at the hub that is asked first and a sound hub behind it."""
    pair = {name: Hubs({"models/org/tiny": repository(FILES)}) for name in (H, "modelscope")}
    job = Job(folder, pair[H].endpoint, pair["modelscope"].endpoint)
    job.asset["sources"] = [row.at, "modelscope" if row.at == H else H]
    if "hangs" in row.what or "drip" in row.what:
        job.download |= {"answer_seconds": 4, "stall_seconds": 3}
    if row.everything:
        job.asset["allow"] = ["*"]
    row.arrange(pair[row.at], job)
    start = time.monotonic()
    said = job.run(status=None)
    seconds = time.monotonic() - start
    for hub in pair.values():
        hub.close()
    manifest = job.manifest() if (job.output / "manifest.json").exists() else None
    strays = [p for p in folder.rglob("*evil*") if p.is_file()]
    partial = sorted(p.name for p in (job.output / ".work").rglob("*") if p.is_file())
    left = f"whole, from {manifest['source']}" if manifest else "no manifest"
    left += f"; waiting in .work: {', '.join(partial)}" if partial else ""
    left += f"; STRAY {strays}" if strays else ""
    if os.path.ismount(job.output):
        subprocess.run(["umount", job.output], check=True)
    return Outcome(said, manifest and manifest["source"], seconds, left, job.files() if manifest else {})


def run_all(rows: list[Row], folder: Path, at_once: int = 4) -> list[Outcome]:
    """All rows, several at a time: they mostly wait."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda pair: run(pair[1], folder / str(pair[0])), enumerate(rows)))


def reads(outcome: Outcome) -> str:
    """The lines that say why a hub was left; where none was, the last line."""
    lines = [line.removeprefix("tiny: ") for line in outcome.said.splitlines() if line.startswith("tiny: ")]
    why = "; ".join(lines[:-1] if outcome.source else lines) or lines[-1]
    return re.sub(r" \(http://[^)]*\)| in /\S+", "", why)


def main() -> None:
    """Write the table."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_all(ROWS, Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    lines = [
        "| what goes wrong | at | what the user reads | left behind | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row, outcome in zip(ROWS, outcomes, strict=True):
        lines.append(f"| {row.what} | {row.at} | {reads(outcome)} | {outcome.left} | {outcome.seconds:.1f} |")
    page = ROOT / "docs/download.md"
    before, _, rest = page.read_text().partition("<!-- faults -->\n")
    page.write_text(
        before + "<!-- faults -->\n" + "\n".join(lines) + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
    )


if __name__ == "__main__":
    main()
