"""The Hugging Face hub, or a mirror of it, through ``huggingface_hub``: run by ``client.py``'s protocol.

``hf_hub_download`` begins a file anew after an interruption (since 1.x its partial file's name is random), so the
same three steps are taken here with the client's own parts: where the file is and what its hash is, then ``http_get``
from the byte that is missing.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urlsplit

import httpx
from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_hf_file_metadata,
    hf_hub_url,
    set_client_factory,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from openr1_repro.download.client import EndedEarly, Hub, Order, serve
from openr1_repro.download.files import File, SourceError, WrongBytes, listing

# Pieces as they arrive: the client's own 10 MB would show no progress on a slow line, and be lost when killed.
constants.DOWNLOAD_CHUNK_SIZE = None  # type: ignore[assignment]
# Bytes read, hashed and written at a time: less, and threads that take turns cost more than the work; more, and the
# processor's cache is too small.
PIECE = 2**19


def _raise_at_once(response: httpx.Response) -> None:
    """The client sleeps on some of these answers without a word; here the waiting is done, and told, by
    ``client.py``."""
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise HfHubHTTPError(f"HTTP status {response.status_code}", response=response)


class _Body(httpx.SyncByteStream):
    """The rest of an answer's body, read from the connection itself (httpx's ``network_stream``).

    On the usual way each byte is copied four times more, which costs a fast line a fifth of its speed. The connection is closed
    after it, so this pays for large files only.
    """

    def __init__(self, response: httpx.Response):
        assert isinstance(response.stream, httpx.SyncByteStream)
        self.usual, self.connection = response.stream, response.extensions["network_stream"]
        self.length = int(response.headers["Content-Length"])
        self.timeout = response.request.extensions["timeout"]["read"]

    def __iter__(self) -> Iterator[bytes]:
        usual = iter(self.usual)  # kept: when it is dropped the connection is closed
        data = next(usual)  # what came along with the head of the answer
        arrived = 0
        while data:
            yield data
            arrived += len(data)
            if arrived == self.length:
                return
            data = self.connection.read(min(PIECE, self.length - arrived), self.timeout)
        raise httpx.RemoteProtocolError(f"connection closed after {arrived} of {self.length} bytes")

    def close(self) -> None:
        self.usual.close()


def _read_straight(response: httpx.Response) -> None:
    """Have a large body read by ``_Body``."""
    large = int(response.headers.get("Content-Length", 0)) >= PIECE // 2
    if large and response.request.method == "GET" and response.is_success and response.http_version == "HTTP/1.1":
        response.stream = _Body(response)


class _Sink:
    """The partial file as ``http_get`` writes it: hashed and counted on the way, and never longer than announced.

    Small pieces are gathered, for a second at most: a kill costs no more than that.
    """

    def __init__(self, stream: IO[bytes], file: File, count: Callable[[int], None]):
        self.stream, self.file, self.count = stream, file, count
        self.size, self.hash = 0, hashlib.sha256()
        self.waiting: list[bytes] = []
        self.gathered, self.flushed = 0, time.monotonic()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        if self.size > self.file.size:
            raise WrongBytes(f"{self.file.path}: more bytes than the {self.file.size} announced")
        self.count(len(data))
        self.waiting.append(data)
        self.gathered += len(data)
        if self.gathered >= PIECE // 2 or time.monotonic() - self.flushed > 1:
            self.flush()
        return len(data)

    def flush(self) -> None:
        data = b"".join(self.waiting)  # of one, that one: no copy
        self.waiting.clear()
        self.gathered, self.flushed = 0, time.monotonic()
        self.hash.update(data)
        self.stream.write(data)
        self.stream.flush()

    def tell(self) -> int:
        return self.size

    def seek(self, offset: int) -> None:
        """To the beginning, before ``truncate``: the server sends the whole file although a part was asked for."""

    def truncate(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        self.count(-self.size)
        self.waiting.clear()
        self.size, self.gathered, self.hash = 0, 0, hashlib.sha256()


def _file(path: str, size: int, lfs: Any, blob_id: str) -> File:
    """Large files are announced with their SHA-256 (their blob id is a pointer's), others with their own blob id."""
    return File(path, size, lfs["sha256"] if lfs else None, None if lfs else blob_id)


def connect(order: Order) -> Hub:
    """The hub that ``order`` names."""
    offline = constants.is_offline_mode()
    if not offline:
        timeout = httpx.Timeout(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        set_client_factory(
            lambda: httpx.Client(
                follow_redirects=True, timeout=timeout, event_hooks={"response": [_raise_at_once, _read_straight]}
            )
        )
    headers = build_hf_headers(library_name="openr1-repro")
    commit = order.revision

    def list_files() -> tuple[str, list[File]]:
        nonlocal commit
        if offline:
            folder = Path(
                snapshot_download(order.repo, repo_type=order.kind, revision=order.revision, local_files_only=True)
            )
            commit = folder.name
            if order.pinned:
                return commit, listing(folder, within=folder.parent.parent)  # the lock says what is whole
            tree = get_cached_repo_tree(order.repo, repo_type=order.kind, revision=commit)
            return commit, [_file(f.path, f.size, f.lfs, f.blob_id) for f in tree]
        api = HfApi(endpoint=order.endpoint, library_name="openr1-repro")
        info: Any = api.repo_info(order.repo, repo_type=order.kind, revision=order.revision, files_metadata=True)
        commit = info.sha
        return commit, [_file(f.rfilename, f.size, f.lfs, f.blob_id) for f in info.siblings or []]

    def cached(file: File) -> Path | None:
        found = try_to_load_from_cache(order.repo, file.path, revision=commit, repo_type=order.kind)
        return Path(found) if isinstance(found, str) else None

    def fetch(file: File, partial: Path, target: Path, count: Callable[[int], None]) -> str | None:
        url = hf_hub_url(order.repo, file.path, repo_type=order.kind, revision=commit, endpoint=order.endpoint)
        said = get_hf_file_metadata(url, endpoint=order.endpoint, headers=headers)
        if said.commit_hash not in (None, commit):
            raise SourceError(f"{file.path}: comes from commit {said.commit_hash[:12]}…, asked was {commit[:12]}…")
        if said.size not in (None, file.size):
            raise SourceError(f"{file.path}: announced with {file.size} bytes, then with {said.size}")
        if file.sha256 and said.etag and len(said.etag) == 64 and said.etag != file.sha256:
            raise SourceError(f"{file.path}: announced with two hashes, {file.sha256[:12]}… and {said.etag[:12]}…")
        same_host = urlsplit(said.location).hostname == urlsplit(url).hostname
        with open(partial, "ab+") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            sink = _Sink(stream, file, count)
            stream.seek(0)
            while block := stream.read(2**20):
                sink.hash.update(block)
                sink.size += len(block)
            count(sink.size)
            try:
                http_get(
                    said.location, cast(BinaryIO, sink), resume_size=sink.size, expected_size=file.size,
                    headers=headers if same_host else {k: v for k, v in headers.items() if k != "authorization"},
                )  # fmt: skip
                sink.flush()
            except BaseException as error:
                sink.flush()
                count(-sink.size)
                early = f"{file.path}: ended after {sink.size} of {file.size} bytes"
                if isinstance(error, HfHubHTTPError) and error.response.status_code == 416:
                    raise WrongBytes(early) from None
                if isinstance(error, OSError) and "Consistency check" in str(error):
                    raise EndedEarly(early) from None
                raise
        partial.replace(target)
        sha256 = sink.hash.hexdigest()
        return sha256 if sha256 == file.sha256 else None

    return Hub(list_files, cached, fetch)


if __name__ == "__main__":
    serve(connect)
