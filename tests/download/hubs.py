"""A server on loopback that speaks both hubs' protocols, as huggingface_hub 1.33 and modelscope 1.40 use them, with
faults to switch on. Large files (``lfs``) are redirected to a "storage" host, as both hubs do; every request is noted.

As a command it serves a folder of repositories, for benchmarks: ``python tests/download/hubs.py ROOT`` prints its port.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SECRET = "signed-SECRET-url"


@dataclass
class Blob:
    """Bytes of one file, in memory or on disk, and the hashes that the hubs announce."""

    source: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        with open(self.source, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """The files of one commit; ``listed`` overrides what the listing says of a file (size, sha256, path), for hostile
    hubs."""

    files: dict[str, Blob]
    commit: str = "c0ffee" * 6 + "abcd"
    gated: bool = False
    listed: dict[str, dict] = field(default_factory=dict)

    def lfs(self, path: str) -> bool:
        return path.endswith((".safetensors", ".parquet", ".bin"))


@dataclass
class Fault:
    """What goes wrong: ``do(handler, blob)`` takes the place of the answer to a ``route`` (list, head, file, storage).

    The first ``skip`` such requests are answered, then ``times`` go wrong. ``do`` gives True to have the request
    answered after all.
    """

    route: str
    do: Callable
    path: str = ""
    times: int = 10**9
    skip: int = 0


@dataclass
class Request:
    """One request as it was answered: ``start`` is the first byte asked for, ``sent`` how many bytes of the file went
    out."""

    method: str
    route: str
    path: str
    start: int = 0
    sent: int = 0
    authorization: str = ""
    url: str = ""


class Hubs:
    """The server. ``repositories`` maps ``models/org/name`` and ``datasets/org/name``; rate is bytes a second for
    each file."""

    def __init__(self, repositories: dict[str, Repository], port: int = 0):
        self.repositories = repositories
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.rate = 0.0
        self.server = Server(("127.0.0.1", port), Handler)
        self.server.hubs = self
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def bytes_sent(self, path: str = "") -> int:
        return sum(r.sent for r in self.requests if path in r.path)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    hubs: Hubs

    def handle_error(self, request, client_address):  # a client that hangs up is what the tests do
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    disable_nagle_algorithm = True

    def log_message(self, *arguments) -> None:
        pass

    # --- routing

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), {k: v[0] for k, v in parse_qs(url.query).items()}
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            kind, name, what, revision = match.groups()
            self.answer("list", f"{kind}/{name}", "", lambda repo: self.huggingface_list(repo, name, what, revision))
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            dataset, name, revision, file = match.groups()
            route = "head" if self.command == "HEAD" else "file"
            self.answer(
                route,
                f"{'datasets' if dataset else 'models'}/{name}",
                file,
                lambda repo: self.huggingface_file(repo, revision, file),
            )
        elif match := re.fullmatch(r"/api/v1/(models|datasets)/([^/]+/[^/]+)/repo/(files|tree)", path):
            self.answer("list", f"{match[1]}/{match[2]}", "", self.modelscope_list)
        elif match := re.fullmatch(r"/api/v1/(models|datasets)/([^/]+/[^/]+)/repo", path):
            file = self.query["FilePath"]
            self.answer("file", f"{match[1]}/{match[2]}", file, lambda repo: self.modelscope_file(repo, file))
        elif match := re.fullmatch(r"/storage/(models|datasets)/([^/]+/[^/]+)/(.+)", path):
            self.answer("storage", f"{match[1]}/{match[2]}", match[3], lambda repo: self.send_blob(repo, match[3], {}))
        elif path == "/api/v1/repos/internalAccelerationInfo":
            self.send_json({"Code": 200, "Data": {}})
        else:
            self.send_json({"error": "not found", "Code": 404, "Message": "not found"}, 404)

    def answer(self, route: str, key: str, path: str, reply: Callable[[Repository], None]) -> None:
        hubs = self.server.hubs
        self.note = Request(
            self.command, route, path, authorization=self.headers.get("Authorization", ""), url=self.path
        )
        hubs.requests.append(self.note)
        repo = hubs.repositories.get(key)
        if repo is None:
            self.send_json(
                {"error": "Repository not found", "Code": 404, "Message": "record not found"},
                404,
                {"X-Error-Code": "RepoNotFound"},
            )
            return
        if repo.gated and route != "storage" and not self.note.authorization:
            self.send_json(
                {"error": "gated", "Code": 403, "Message": "no permission"}, 403, {"X-Error-Code": "GatedRepo"}
            )
            return
        for fault in hubs.faults:
            if fault.route == route and fault.path in path and fault.times > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if not fault.do(self, repo.files.get(path)):
                    return
        reply(repo)

    # --- the Hugging Face hub

    def huggingface_list(self, repo: Repository, name: str, what: str | None, revision: str | None) -> None:
        entries = []
        for path, blob in repo.files.items():
            said = {
                "path": path,
                "size": blob.size,
                "sha256": blob.sha256,
                "git_sha1": blob.git_sha1,
            } | repo.listed.get(path, {})
            entries.append((said, repo.lfs(path)))
        if what == "tree":
            tree = [
                {"type": "file", "path": f["path"], "size": f["size"], "oid": f["git_sha1"]}
                | ({"lfs": {"oid": f["sha256"], "size": f["size"], "pointerSize": 134}} if lfs else {})
                for f, lfs in entries
            ]
            self.send_json(tree)
            return
        siblings = [
            {"rfilename": f["path"], "size": f["size"], "blobId": f["git_sha1"]}
            | ({"lfs": {"sha256": f["sha256"], "size": f["size"], "pointerSize": 134}} if lfs else {})
            for f, lfs in entries
        ]
        self.send_json(
            {"id": name, "sha": repo.commit, "private": False, "gated": False, "tags": [], "siblings": siblings}
        )

    def huggingface_file(self, repo: Repository, revision: str, path: str) -> None:
        if path not in repo.files:
            self.send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        blob = repo.files[path]
        commit = {"X-Repo-Commit": repo.commit}
        if repo.lfs(path):
            headers = commit | {
                "X-Linked-Etag": f'"{blob.sha256}"',
                "X-Linked-Size": str(blob.size),
                "ETag": '"pointer"',
            }
            self.redirect(repo, path, headers)
        else:
            self.send_blob(repo, path, commit | {"ETag": f'"{blob.git_sha1}"'})

    # --- ModelScope

    def modelscope_list(self, repo: Repository) -> None:
        entries = []
        for path, blob in repo.files.items():
            said = {"path": path, "size": blob.size, "sha256": blob.sha256} | repo.listed.get(path, {})
            entries.append({
                "Name": path.split("/")[-1], "Path": said["path"], "Size": said["size"], "Sha256": said["sha256"],
                "Type": "blob", "IsLFS": repo.lfs(path), "Mode": said.get("mode", "33188"),
                "Revision": repo.commit, "CommittedDate": 1_700_000_000,
            })  # fmt: skip
        size, page = int(self.query.get("PageSize", 10**6)), int(self.query.get("PageNumber", 1))
        self.send_json({"Code": 200, "Success": True, "Data": {"Files": entries[(page - 1) * size : page * size]}})

    def modelscope_file(self, repo: Repository, path: str) -> None:
        if path not in repo.files:
            self.send_json({"Code": 404, "Message": "file not found", "Success": False}, 404)
        elif repo.lfs(path):
            self.redirect(repo, path, {"X-Linked-ETag": f'"{repo.files[path].sha256}"'})
        else:
            self.send_blob(repo, path, {}, ranges=False)  # ModelScope sends files of its git whole

    # --- answers

    def redirect(self, repo: Repository, path: str, headers: dict[str, str]) -> None:
        key = next(k for k, v in self.server.hubs.repositories.items() if v is repo)
        # "localhost" is another host than 127.0.0.1: tokens must not follow.
        self.send_empty(
            302,
            headers | {"Location": f"http://localhost:{self.server.hubs.port}/storage/{key}/{path}?Signature={SECRET}"},
        )

    def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_empty(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()

    def send_blob(
        self, repo: Repository, path: str, headers: dict[str, str], ranges: bool = True, length: int | None = None
    ) -> None:
        """The file, from the byte that Range names; ``length`` cuts it short (the connection is closed after it)."""
        blob = repo.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if ranges else None
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1 if asked and asked[2] else blob.size, blob.size)
        if asked and start >= blob.size:
            self.send_empty(416, {"Content-Range": f"bytes */{blob.size}"})
            return
        self.note.start = start
        self.send_response(206 if asked else 200)
        for name, text in {"Content-Length": str(end - start), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, text)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{blob.size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if length is not None:
            end = min(end, start + length)
            self.close_connection = True
        self.wfile.flush()
        rate = self.server.hubs.rate
        if isinstance(blob.source, Path) and not rate:
            with open(blob.source, "rb") as stream:
                while start < end:
                    start += os.sendfile(self.connection.fileno(), stream.fileno(), start, min(end - start, 2**24))
            return
        data = blob.source if isinstance(blob.source, bytes) else blob.source.read_bytes()
        step = 2**14 if rate else 2**20
        while start < end:
            piece = data[start : min(start + step, end)]
            self.wfile.write(piece)
            self.note.sent += len(piece)
            start += len(piece)
            if rate:
                time.sleep(len(piece) / rate)

    def hang(self, blob: Blob | None = None) -> None:
        """Say nothing until the client gives up."""
        self.connection.settimeout(60)
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True

    def cut(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
        self.close_connection = True


def main() -> None:
    """Serve ROOT/{models,datasets}/org/name/… until stdin closes."""
    root = Path(sys.argv[1])
    repositories = {}
    for folder in root.glob("*s/*/*"):
        files = {p.relative_to(folder).as_posix(): Blob(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        repositories[folder.relative_to(root).as_posix()] = Repository(files)
        for blob in files.values():
            _ = blob.sha256, blob.git_sha1
    print(Hubs(repositories).port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
