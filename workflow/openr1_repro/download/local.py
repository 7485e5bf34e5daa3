"""Sources on this machine: a folder filled by hand, the embedded hub, a Python package."""

import os
import subprocess
import sys
from pathlib import Path

from openr1_repro.download.files import File, SourceError, digests
from openr1_repro.download.settings import AssetSettings

EMBEDDED_HUB = Path(__file__).parents[2] / "resources" / "hub"


def folder_of(root: Path, asset: AssetSettings) -> Path:
    """Where the asset lies in a folder of assets."""
    return root / f"{asset.kind}s" / asset.repo.replace("/", "--")


def listing(folder: Path) -> list[File]:
    """Every file under ``folder``, hashed. Version control and the hubs' own notes (names that begin with a dot) are left out.

    Raises:
        SourceError: if there is no such folder, or a link in it leads out of it.
    """
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}")
    home = folder.resolve()
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or path.is_dir():
            continue
        if not path.resolve().is_relative_to(home):
            raise SourceError(f"{path}: a link that leads out of {folder}; put the file itself there")
        if not path.is_file():
            raise SourceError(f"{path}: not a plain file")
        found.append(File(name, path.stat().st_size, digests(path)[0]))
    return found


_BUILD = """
import importlib, json, pathlib, sys
from importlib.metadata import version
destination, builder, options, requirement = sys.argv[1:]
module, _, function = builder.partition(":")
getattr(importlib.import_module(module), function)(pathlib.Path(destination), json.loads(options))
pathlib.Path(destination + ".version").write_text(version(requirement))
"""


def build(asset: AssetSettings, destination: Path) -> str:
    """Have the asset's builder write its files into ``destination``, in a Python with the locked packages; give the package's version.

    Raises:
        SourceError: with the last line that the builder, or the installer, said.
    """
    import json

    package = asset.package
    assert package is not None
    destination.mkdir(parents=True)
    command = ["uv", "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable]
    command += ["--with-requirements", package.requirements, "python", "-c", _BUILD]
    command += [str(destination), package.builder, json.dumps(package.options), package.requirement]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise SourceError("uv is not installed; it fetches the package") from None
    if done.returncode:
        raise SourceError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return Path(f"{destination}.version").read_text()
