"""The process that talks to one hub: lists a repository, then fetches what it is told to. The other end is ``hub.py``.

A process of its own, because the clients of the hubs cannot be interrupted: ``hub.py`` watches what arrives and ends
it when nothing does. One JSON object a line; first line in: the order. Out: ``{"ready": true}`` (the hub's time to
answer starts), ``{"listing": …}``; in: ``{"fetch": [files]}``; then out, as it goes, ``{"bytes": so far}``,
``{"wait": seconds, "why": …}``, ``{"done": path, "sha256": …}``, at last ``{"end": true}`` or ``{"error": …}``. It
ends by itself when its standard input closes, so that nothing outlives a killed parent.
"""

import contextlib
import dataclasses
import email.utils
import errno
import hashlib
import json
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from openr1_repro.download.files import File, SourceError, WrongBytes, check, place, verified

T = TypeVar("T")

# Of the process while it lists a repository, in bytes: enough for 100,000 files.
LISTING_MEMORY = 2**29


@dataclass(frozen=True)
class Order:
    """What the process is to do: ``work`` is the asset's working folder; the rest is as in the settings."""

    kind: str
    repo: str
    revision: str
    endpoint: str | None
    work: str
    workers: int
    retries: int
    max_wait_seconds: float
    pinned: bool = False


class EndedEarly(ConnectionError):
    """The hub sent fewer bytes than it announced, and called that the end."""


@dataclass
class Hub:
    """A hub's client: the three things asked of it."""

    list: Callable[[], tuple[str, list[File]]]
    """The commit, and every file of it."""
    cached: Callable[[File], Path | None]
    """The file in the client's own cache on this machine."""
    fetch: Callable[[File, Path, Path, Callable[[int], None]], str | None]
    """``fetch(file, partial, target, count)``: bring ``file`` to ``target`` through ``partial``, which may hold its
    beginning. ``count(bytes)`` is called as they arrive, negatively for bytes that are thrown away. Gives the SHA-256
    if it was checked on the way, else None."""


def tell(**message: Any) -> None:
    """Send one line to the parent, whole (threads share the pipe)."""
    os.write(1, (json.dumps(message) + "\n").encode())


@dataclass
class _Counter:
    """Bytes so far, told to the parent ten times a second."""

    total: int = 0
    told: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, number: int) -> None:
        with self.lock:
            self.total += number

    def run(self) -> None:
        while True:
            time.sleep(0.1)
            if self.total != self.told:
                self.told = self.total
                tell(bytes=self.told)


def serve(connect: Callable[[Order], Hub]) -> None:
    """Do one order."""
    order = Order(**json.loads(sys.stdin.readline()))
    tell(ready=True)
    try:
        hub = connect(order)
        with _little_memory():
            commit, found = _persistent(hub.list, order, listing=True)
        tell(listing=[dataclasses.asdict(file) for file in found], commit=commit)
        answer = sys.stdin.readline()
        if not answer:
            return
        threading.Thread(target=_end_with_parent, daemon=True).start()
        counter = _Counter()
        threading.Thread(target=counter.run, daemon=True).start()
        wanted = [File(**file) for file in json.loads(answer)["fetch"]]
        pool = ThreadPoolExecutor(order.workers)
        # Large files first: they decide when the last byte arrives.
        jobs = [
            pool.submit(_bring, hub, order, commit, file, counter) for file in sorted(wanted, key=lambda f: -f.size)
        ]
        finished, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in finished:
            job.result()
        tell(end=True)
    except BaseException as error:
        failure = error if isinstance(error, SourceError) else SourceError(explain(error))
        tell(error=str(failure), again=failure.again)
    # Threads may sit in a read that never returns.
    os._exit(0)


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """Both clients gather a listing in memory, whatever its size: bound it here (Linux does, other systems do not)."""
    usual, most = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(ValueError):  # a stricter limit is there already
        resource.setrlimit(resource.RLIMIT_DATA, (LISTING_MEMORY, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (usual, most))


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _bring(hub: Hub, order: Order, commit: str, file: File, count: Callable[[int], None]) -> None:
    """Have ``file``, checked, at ``work/files/<path>``."""
    work = Path(order.work)
    target = work / "files" / file.path
    sha256 = verified(target, file)
    if not sha256 and (cached := hub.cached(file)):
        place(cached, target)
        sha256 = verified(target, file)
    if sha256:
        count(file.size)
        tell(done=file.path, sha256=sha256)
        return
    # Named by the checksum alone where there is one: what one hub began another may then finish. Without one, by hub
    # and commit.
    # Not `stage.digest`: importing that module would cost the client a tenth of a second.
    identity = [order.endpoint, order.repo, commit, file.path, file.git_sha1]
    key = file.sha256 or hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    draft = work / "parts" / key / file.path
    partial = draft.with_name(draft.name + ".incomplete")
    draft.parent.mkdir(parents=True, exist_ok=True)
    resumed = partial.exists()
    while True:
        try:
            sha256 = _persistent(lambda: hub.fetch(file, partial, draft, count), order) or check(draft, file)
            break
        except WrongBytes:
            draft.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
            if not resumed:
                raise
            # The beginning came from an earlier run, perhaps from another hub: once more, from the first byte.
            resumed = False
    target.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(target)
    tell(done=file.path, sha256=sha256)


def _persistent(call: Callable[[], T], order: Order, listing: bool = False) -> T:
    """Call, again after a pause while it fails for a passing reason; while listing, a hub out of reach is not one."""
    attempt = 0
    while True:
        try:
            return call()
        except SourceError:
            raise
        except Exception as error:
            status, said = _status(error), explain(error)
            passing = (
                status in (408, 429)
                or (status is not None and status >= 500)
                or (status is None and _is_network(error) and not listing)
            )
            if not passing or attempt >= order.retries:
                raise SourceError(said) from None
            asked = _retry_after(error)
            pause = min(2**attempt, 8) if asked is None else asked
            if pause > order.max_wait_seconds:
                raise SourceError(f"{said}; it asks to wait {pause:.0f} s") from None
            attempt += 1
            tell(wait=pause, why=said)
            time.sleep(pause)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) or getattr(error, "status_code", None)


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the hub asks to wait: ``Retry-After`` in either form."""
    value = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _is_network(error: BaseException) -> bool:
    """Whether the connection failed, as against what came over it: both clients' errors say so in their class names."""
    names = " ".join(cls.__name__ for cls in type(error).__mro__)
    return bool(re.search(r"Connect|Timeout|Network|Protocol|ReadError|IncompleteBody|Chunked", names))


_MEANING = {
    401: "401: it wants a login, or has no such repository",
    403: "403: access refused; a gated repository wants its terms accepted and a login",
    404: "404: no such repository, revision or file",
    429: "429: too many requests",
}


def explain(error: BaseException) -> str:
    """One line for people, without addresses' queries (signatures, tokens) and other secrets."""
    if isinstance(error, EndedEarly):
        return str(error)
    if "TooManyRedirects" in type(error).__name__:
        return "redirects without end"
    status = _status(error)
    if status in _MEANING:
        return _MEANING[status]
    if status is not None:
        return f"{status}: the hub is in trouble" if status >= 500 else f"HTTP status {status}"
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 8:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, MemoryError) for cause in chain):
        return f"its listing does not end, or needs more than {LISTING_MEMORY >> 20} MB of memory"
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain):
        return "the disk is full"
    text = " ".join(map(str, chain))
    if "JSONDecode" in type(error).__name__:
        return "not a hub's answer (a network's sign-in page?)"
    if re.search(r"Name or service not known|name resolution|No address|nodename|getaddrinfo|NameResolution", text):
        return "its name cannot be resolved (no network, or a wrong address)"
    if "refused" in text:
        return "connection refused"
    if "redirect" in text.lower():
        return "redirects without end"
    if "timed out" in text.lower() or "timeout" in f"{text}{type(error).__name__}".lower():
        return "no answer in time"
    if _is_network(error):
        return "the connection broke"
    return redact(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def redact(text: str) -> str:
    """``text`` without the tokens of this environment, passwords in addresses, and addresses' queries."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "MODELSCOPE_API_TOKEN"):
        if len(secret := os.environ.get(name, "")) > 3:
            text = text.replace(secret, "***")
    text = re.sub(r"\b(hf_|ms-)[A-Za-z0-9-]{8,}", "***", text)
    return re.sub(r"(https?://)(?:[^/\s@]*@)?([^\s?'\"<>)]*)(\?[^\s'\"<>)]*)?", r"\1\2", text)
