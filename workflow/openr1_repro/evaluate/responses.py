"""The response cache: one append-only file per state of the weights, found again by everything that decides a text."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from openr1_repro.evaluate.protocol import Sampling
from openr1_repro.stage import UserError, file_sha256


@dataclass(frozen=True)
class Request:
    """One sample to draw."""

    benchmark: str
    item: int
    sample: int
    prompt: str
    """The whole text that the model sees."""
    sampling: Sampling
    seed: int = 0
    batch: str = ""
    """What it is drawn together with, where that decides its text, too."""

    def key(self, engine: str) -> str:
        """What the response is stored under, beside the weights."""
        parts = [engine, self.item, self.prompt, self.sampling.model_dump(), self.seed, self.batch]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Response:
    """What came back."""

    text: str
    num_tokens: int
    """Generated tokens, the one that ended the text included."""
    finish_reason: str
    """``stop``: the model ended it; ``length``: the token limit did."""


def seed_of(*parts: object) -> int:
    """A 31-bit seed: the same for the same parts, unrelated for others.

    Requests that shared a seed would draw the same noise, and a benchmark's problems would no longer be independent.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


def fingerprint(model: Path) -> str:
    """A digest of every file in a model's folder that can change what it says: weights, configuration, tokenizer, template.

    The path plays no part: weights exchanged under one path are another model.
    """
    files = sorted(path for path in model.rglob("*") if path.is_file())
    files = [
        path
        for path in files
        if path.suffix != ".md" and not any(p.startswith(".") for p in path.relative_to(model).parts)
    ]
    if not any(path.suffix in (".safetensors", ".bin", ".gguf") for path in files):
        raise UserError(f"{model}: no weights (*.safetensors); let the stage that writes it run again")
    lines = [f"{file_sha256(path)} {path.relative_to(model).as_posix()}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class ResponseCache:
    """Responses on disk, a JSON line each, appended as they come: what a kill loses is the line being written.

    All runs share a folder. While one has the file of some weights open, another that wants the same waits, and then finds what it wrote.
    """

    def __init__(self, folder: Path, weights: str, engine: str):
        self._engine = engine
        self._path = folder / f"{weights[:16]}.jsonl"
        self._known: dict[str, Response] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another job generates with the same weights: waiting for it", flush=True)
            fcntl.flock(self._stream, fcntl.LOCK_EX)
        self._stream.seek(0)
        whole = 0
        for line in self._stream:
            if not line.endswith(b"\n"):
                break  # torn by a kill
            whole += len(line)
            row = json.loads(line)
            key = row.pop("key")
            self._known[key] = Response(**row)
        self._stream.truncate(whole)

    def get(self, request: Request) -> Response | None:
        """The stored response, or None."""
        return self._known.get(request.key(self._engine))

    def add(self, answers: Iterable[tuple[Request, Response]]) -> None:
        """Store new responses; they are on disk when this returns. An old response to the same request stays."""
        lines = []
        for request, response in answers:
            key = request.key(self._engine)
            if key not in self._known:
                self._known[key] = response
                lines.append(json.dumps({"key": key, **asdict(response)}, ensure_ascii=False) + "\n")
        self._stream.write("".join(lines).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file, for others to open."""
        self._stream.close()
