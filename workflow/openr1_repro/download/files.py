"""Files of a repository: which are wanted, which are refused, and whether the bytes are right."""

import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydantic takes a third of the time in which a hub's client starts, and is not needed there
    from openr1_repro.download.settings import AssetSettings

# What a stage reads. Cards and licences stay at the hub: they differ from hub to hub, and nothing needs them.
WANTED = {
    "model": ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.bin", "*.pt", "*.pth"],
    "dataset": ["*.parquet", "*.jsonl", "*.json", "*.csv"],
}
# Exports to other formats lie in folders of a model's repository; "consolidated" weights are the same ones again.
UNWANTED = {"model": ["*/*", "consolidated*"], "dataset": []}
# Loading any of these can run code that its author chose.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")


class SourceError(Exception):
    """Why a source cannot give the asset; the next one is tried. ``again``: the same source, listed anew, may."""

    def __init__(self, message: str, again: bool = False):
        super().__init__(message)
        self.again = again


class WrongBytes(SourceError):
    """The bytes of a file are not those announced."""


@dataclass(frozen=True)
class File:
    """One file as its source announces it: ``size`` in bytes, and the hash that the source knows (``git_sha1``: git's
    blob id)."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


def _name_trouble(path: str) -> str | None:
    """Why writing a file of this name could harm, None if it cannot."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "is absolute, empty or has unprintable letters"
    if any(part in ("", ".", "..") for part in parts) or ":" in parts[0]:
        return "points outside its folder"
    if any(len(part.encode("utf-8", "surrogatepass")) > 240 for part in parts) or not path.isprintable():
        return "is too long or unprintable"
    return None


def listing(folder: Path, within: Path | None = None) -> list[File]:
    """Every file under ``folder``, hashed; names that begin with a dot (version control, the hubs' notes) are left out.

    Raises:
        SourceError: if there is no such folder, or a link in it leads out of it (out of ``within``, where given).
    """
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}")
    home = (within or folder).resolve()
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


def choose(files: Iterable[File], asset: "AssetSettings", pinned: list[dict[str, Any]] | None) -> list[File]:
    """The files of a repository to fetch, sorted by path; with ``pinned`` (files of a lock entry) exactly those.

    Raises:
        SourceError: if a name could harm, only pickles are there, nothing matches, or the repository contradicts
        ``pinned``.
    """
    offered = list(files)
    wanted, refused = [], []
    for file in offered:
        if trouble := _name_trouble(file.path):
            raise SourceError(f"hostile file name {file.path!r}: it {trouble}")
        if not isinstance(file.size, int) or not 0 <= file.size < 2**50:
            raise SourceError(f"{file.path}: absurd size {file.size!r}")
        if not _is_wanted(file.path, asset):
            continue
        if file.path.lower().endswith(PICKLES) and file.path not in asset.allow_pickle:
            refused.append(file.path)
        else:
            wanted.append(file)
    seen: dict[str, tuple[str, bool]] = {}
    for file in wanted:
        parts = file.path.split("/")
        for depth in range(1, len(parts) + 1):
            name, is_file = "/".join(parts[:depth]), depth == len(parts)
            # Where the file system ignores case or Unicode form, one of two such files would silently replace the
            # other.
            key = unicodedata.normalize("NFC", name).casefold()
            other = seen.setdefault(key, (name, is_file))
            if other != (name, is_file):
                raise SourceError(
                    f"hostile file names: {other[0]!r} and {file.path!r} would be one file on some file systems"
                )
    if pinned is not None:
        return _as_pinned(offered, pinned)
    if any(file.path.endswith(".safetensors") for file in wanted):
        wanted = [file for file in wanted if not file.path.lower().endswith(PICKLES)]  # the same weights again
    elif refused and asset.kind == "model":
        raise SourceError(
            f"its weights can run code when they are loaded ({', '.join(sorted(refused))}); allow_pickle takes them"
        )
    if not wanted:
        raise SourceError(f"none of its {len(offered)} files is among {', '.join(asset.allow or WANTED[asset.kind])}")
    return sorted(wanted, key=lambda file: file.path)


def _is_wanted(path: str, asset: "AssetSettings") -> bool:
    allow = WANTED[asset.kind] if asset.allow is None else asset.allow
    ignore = asset.ignore + (UNWANTED[asset.kind] if asset.allow is None else [])
    return any(fnmatchcase(path, p) for p in allow) and not any(fnmatchcase(path, p) for p in ignore)


def _as_pinned(offered: list[File], pinned: list[dict[str, Any]]) -> list[File]:
    by_path = {file.path: file for file in offered}
    chosen = []
    for entry in pinned:
        file = by_path.get(entry["path"])
        if file is None:
            raise SourceError(f"{entry['path']}: in the lock, not in the repository")
        if file.size != entry["size"] or (file.sha256 or entry["sha256"]) != entry["sha256"]:
            raise SourceError(
                f"{entry['path']}: not the file that the lock pins ({entry['size']} bytes, here {file.size};"
                f" SHA-256 {entry['sha256'][:12]}…, here {(file.sha256 or '?')[:12]}…)"
            )
        chosen.append(File(file.path, file.size, entry["sha256"], file.git_sha1))
    return chosen


def digests(path: Path) -> tuple[str, str]:
    """SHA-256 and git blob id of a file's bytes."""
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            sha256.update(block)
            git.update(block)
    return sha256.hexdigest(), git.hexdigest()


def check(path: Path, file: File) -> str:
    """SHA-256 of the bytes at ``path``.

    Raises:
        WrongBytes: if they are not what was announced.
    """
    size = path.stat().st_size
    if size != file.size:
        raise WrongBytes(f"{file.path}: {size} bytes, announced were {file.size}")
    if file.sha256:
        with open(path, "rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 != file.sha256:
            raise WrongBytes(f"{file.path}: wrong bytes: SHA-256 {sha256[:12]}…, announced was {file.sha256[:12]}…")
        return sha256
    sha256, git = digests(path)
    if file.git_sha1 not in (None, git):
        raise WrongBytes(f"{file.path}: wrong bytes: git blob {git[:12]}…, announced was {file.git_sha1[:12]}…")  # type: ignore[index]
    return sha256


def verified(path: Path, file: File) -> str | None:
    """SHA-256 of ``path`` if it is a plain file that holds what was announced, else None; without a hash nothing is
    taken on trust."""
    if path.is_symlink() or not path.is_file() or not (file.sha256 or file.git_sha1):
        return None
    try:
        return check(path, file)
    except SourceError:
        return None


def place(original: Path, target: Path) -> None:
    """Make ``target`` the same file as ``original``: large ones as a hard link where the file system allows it, else
    as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.placing")  # of its own: files are placed side by side
    draft.unlink(missing_ok=True)
    try:
        if original.stat().st_size < 2**26:
            raise OSError  # a copy costs nothing, and stays right if the original is edited
        os.link(original.resolve(), draft)
    except OSError:
        shutil.copyfile(original, draft)
    draft.replace(target)


def check_complete(chosen: list[File], asset: "AssetSettings", folder: Path) -> None:
    """Check that every part is there that the others' names (``train-00000-of-00010``), or a weights index, speak of.

    Raises:
        SourceError: naming the first missing part.
    """
    series: dict[tuple[str, str, str], dict[int, int]] = {}
    for file in chosen:
        if match := re.fullmatch(r"(.*-)(\d+)(-of-\d+)(\..*)", file.path):
            before, number, of, after = match.groups()
            series.setdefault((before, of, after), {})[int(number)] = len(number)
    for (before, of, after), numbers in series.items():
        parts = int(of.removeprefix("-of-"))
        first = 1 if parts in numbers and 0 not in numbers else 0
        for number in range(first, first + min(parts, 10_000)):
            name = f"{before}{number:0{max(numbers.values())}}{of}{after}"
            if number not in numbers and _is_wanted(name, asset):
                raise SourceError(f"{name} is missing")
    for index in folder.rglob("*.index.json"):
        try:
            parts_named = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # not a weights index
        for part in sorted(parts_named):
            if not (index.parent / part).is_file():
                raise SourceError(f"{index.name} names {part}, which is missing")


def check_room(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes fit beside ``folder``.

    Raises:
        SourceError: with the need and the room.
    """
    room = shutil.disk_usage(folder).free
    if needed > room:
        raise SourceError(f"needs {in_words(needed)}, only {in_words(room)} are free in {folder}")


def in_words(size: float) -> str:
    """A number of bytes for people, such as ``3.55 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
