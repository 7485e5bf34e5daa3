"""Shared by the download tests: the public command against hubs on loopback."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from .hubs import Blob, Hubs, Repository

ROOT = Path(__file__).parents[2]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """A user's environment without hubs, log-ins, caches or proxies of this machine."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR")}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT / "workflow"), **extra}


def model_files(seed: int = 0, parts: int = 3, size: int = 300_000) -> dict[str, bytes]:
    """A model repository's files, the same for the same seed."""
    draw = random.Random(seed)
    shards = {f"model-{i + 1:05}-of-{parts:05}.safetensors": draw.randbytes(size) for i in range(parts)}
    index = json.dumps({"weight_map": {f"layer{i}": name for i, name in enumerate(shards)}}).encode()
    return {
        "config.json": b'{"model_type": "qwen2"}',
        "model.safetensors.index.json": index,
        "README.md": b"card",
        **shards,
    }


def repository(files: dict[str, bytes], **more) -> Repository:
    return Repository({path: Blob(data) for path, data in files.items()}, **more)


class Job:
    """One asset to download: its settings, its folder, and the command run on them."""

    def __init__(self, folder: Path, huggingface: str | None = None, modelscope: str | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.output = folder, folder / "results/assets/models/tiny"
        self.asset: dict = {"kind": "model", "repo": "org/tiny"}
        self.download: dict = {
            "huggingface_endpoint": huggingface, "modelscope_endpoint": modelscope,
            "answer_seconds": 30, "stall_seconds": 30, "retries": 2, "max_wait_seconds": 5,
        }  # fmt: skip
        self.lock: dict | None = None
        self.env: dict[str, str] = {}

    def command(self) -> list[str]:
        settings = {"name": "tiny", "asset": self.asset, "download": self.download, "lock": self.lock}
        command = [sys.executable, "-m", "openr1_repro.download"]
        return [*command, "--settings", json.dumps(settings), "--output", str(self.output)]

    def start(self) -> subprocess.Popen:
        (self.folder / "home").mkdir(exist_ok=True)
        return subprocess.Popen(
            self.command(), cwd=self.folder, env=environment(self.folder / "home", **self.env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, status: int | None = 0) -> str:
        """Run to the end; gives what the user read (progress bars left out)."""
        process = self.start()
        out, err = process.communicate(timeout=300)
        said = out + "".join(line for line in err.splitlines(keepends=True) if line.startswith("error:"))
        self.everything = out + err
        assert status is None or process.returncode == status, out + err
        assert "Traceback" not in out + err, out + err
        return said

    def manifest(self) -> dict:
        return json.loads((self.output / "manifest.json").read_text())

    def files(self) -> dict[str, bytes]:
        root = self.output / "files"
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def hubs():
    """A pair of hubs: the Hugging Face hub and ModelScope, on servers of their own, with the same model in both."""
    pair = [Hubs({"models/org/tiny": repository(model_files())}) for _ in range(2)]
    yield pair
    for hub in pair:
        hub.close()


@pytest.fixture
def job(tmp_path, hubs):
    return Job(tmp_path / "project", hubs[0].endpoint, hubs[1].endpoint)
