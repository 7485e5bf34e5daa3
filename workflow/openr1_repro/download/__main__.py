"""Fetch one asset from the first source that can give it whole, and write down what it is.

    python -m openr1_repro.download --settings '{"asset": …, "name": …, "download": …, "lock": null}' --output
    results/assets/models/NAME

The output folder gets ``files/`` (the repository's tree) and ``manifest.json``, written last: source, repository,
revision (a commit), and name, size and SHA-256 of every file. Sources are tried in order; one that refuses, hangs,
stalls or sends wrong bytes is left for the next, with a line saying why. What arrived waits in ``.work/`` for the
next source or the next run; nothing is fetched twice.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openr1_repro import stage
from openr1_repro.download import files, hub, local
from openr1_repro.download.client import redact
from openr1_repro.download.files import File, SourceError
from openr1_repro.download.settings import AssetSettings, DownloadSettings


class JobSettings(stage.Settings):
    """What the command needs to know."""

    name: str
    """Name of the asset: its key in config/assets.yaml."""
    asset: AssetSettings
    """Its entry there."""
    download: DownloadSettings = DownloadSettings()
    """The hubs."""
    lock: dict[str, Any] | None = None
    """Its entry in config/assets.lock.json; null: not pinned."""


def download(job: JobSettings, output: Path) -> dict[str, Any]:
    """Bring the asset to ``output`` and give its manifest.

    Raises:
        stage.UserError: if no source could give it, with what each of them said and what to try.
    """
    with _alone(output / ".work"):
        manifest = _in_place(job, output) or _from_first_source(job, output)
        _publish(job, manifest, output)
    return manifest


def _from_first_source(job: JobSettings, output: Path) -> dict[str, Any]:
    with contextlib.suppress(
        OSError, shutil.Error
    ):  # files of an older version that are still right are not fetched again
        shutil.copytree(output / "files", output / ".work" / "files", copy_function=os.link)
    said = []
    for source, endpoint in _sources(job):
        for again in (True, False):
            try:
                repository, revision, entries = _fetch(job, source, endpoint, output / ".work")
            except SourceError as error:
                said.append(f"{source}{f' ({redact(endpoint)})' if endpoint else ''}: {error}")
                if source != "folder" or Path(job.download.folder).exists():
                    print(f"{job.name}: {said[-1]}", flush=True)
                if not error.again or not again:
                    break
            else:
                named = {"name": job.name, "kind": job.asset.kind, "source": source}
                return named | {"repository": repository, "revision": revision, "files": entries}
    by_hand = local.folder_of(Path(job.download.folder), job.asset)
    raise stage.UserError(
        "\n".join([f"{job.name}: no source could give {job.asset.repo}:", *(f"  {line}" for line in said)])
        + "\n  What to try: if it was refused, log in (hf auth login or HF_TOKEN; modelscope login or"
        + "\n  MODELSCOPE_API_TOKEN); if the hub is out of reach, set download.mirrors in config/config.yaml;"
        + f"\n  or put the files into {by_hand}/ by hand."
    )


def _sources(job: JobSettings) -> Iterator[tuple[str, str | None]]:
    """The sources to try, in order, and the addresses of the hubs among them (None: the client's own)."""
    for source in job.asset.sources or job.download.sources:
        if source == "mirror":
            yield from ((source, endpoint) for endpoint in job.download.mirrors if not hub.offline())
        elif source == "huggingface":
            yield source, job.download.huggingface_endpoint
        elif source == "modelscope":
            yield source, job.download.modelscope_endpoint
        else:
            yield source, None


def _fetch(job: JobSettings, source: str, endpoint: str | None, work: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """Have the asset's files, checked, in ``work/files``; gives repository, revision, and each file's manifest entry.

    Raises:
        SourceError: if this source cannot.
    """
    asset, settings, lock = job.asset, job.download, job.lock

    def choose(found: list[File]) -> list[File]:
        chosen = files.choose(found, asset, lock["files"] if lock else None)
        here = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        files.check_room(work, sum(file.size for file in chosen) - here)
        return chosen

    if source not in ("huggingface", "mirror", "modelscope"):
        repository, revision, entries = local.fetch(asset, source, Path(settings.folder), work, choose)
    else:
        repository, revision = asset.repo, asset.revision
        if source == "modelscope":
            repository, revision = asset.modelscope_repo or asset.repo, asset.modelscope_revision
        elif lock and lock["source"] in ("huggingface", "mirror"):
            revision = lock["revision"]
        order = {
            "kind": asset.kind,
            "repo": repository,
            "revision": revision,
            "endpoint": endpoint,
            "work": str(work),
            "pinned": bool(lock),
        }
        module = "modelscope" if source == "modelscope" else "huggingface"
        with_token = source != "mirror" or settings.mirrors_get_token
        revision, entries = hub.fetch(module, order, settings, with_token, choose, job.name)
    files.check_complete([File(e["path"], e["size"]) for e in entries], asset, work / "files")
    return repository, revision, entries


def _in_place(job: JobSettings, output: Path) -> dict[str, Any] | None:
    """The manifest of what is in ``output`` already, if that is what the job asks for: then no source is asked, no
    connection opened."""
    try:
        note = stage.read_json(output / ".asset.json")
    except stage.UserError:
        return None
    entries = note["manifest"]["files"]
    if note["asset"] != _identity(job) or (job.lock and job.lock["files"] != entries):
        return None
    right = all(files.verified(output / "files" / e["path"], File(e["path"], e["size"], e["sha256"])) for e in entries)
    return note["manifest"] if right else None


def _identity(job: JobSettings) -> dict[str, Any]:
    """What makes it this asset, wherever it comes from."""
    return job.asset.model_dump(mode="json", exclude={"sources"})


def _publish(job: JobSettings, manifest: dict[str, Any], output: Path) -> None:
    """Move the fetched files into place; the manifest comes last, so that it never describes files that are not
    there."""
    fetched = output / ".work" / "files"
    if (
        not (manifest_path := output / "manifest.json").exists()
        or stage.read_json(manifest_path) != manifest
        or fetched.exists()
    ):
        manifest_path.unlink(missing_ok=True)
        if fetched.exists():
            wanted = {entry["path"] for entry in manifest["files"]}
            for path in fetched.rglob("*"):
                if not path.is_dir() and path.relative_to(fetched).as_posix() not in wanted:
                    path.unlink()  # of an older version
            shutil.rmtree(output / "files", ignore_errors=True)
            fetched.rename(output / "files")
        stage.write_json(output / ".asset.json", {"asset": _identity(job), "manifest": manifest})
        stage.write_json(manifest_path, manifest)
    shutil.rmtree(output / ".work")


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the asset's working folder; another download of it, even the leftover client of a killed one, is waited
    for."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work.parent / ".lock", "w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{work.parent}: waiting for another download of the same asset", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        work.mkdir(exist_ok=True)
        yield


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m openr1_repro.download", description="Fetch one asset.")
    stage.add_settings_argument(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for manifest.json and files/")
    arguments = parser.parse_args()
    manifest = download(stage.parse_settings(arguments.settings, JobSettings), arguments.output)
    size = files.in_words(sum(file["size"] for file in manifest["files"]))
    number = len(manifest["files"])
    print(f"{manifest['name']}: {number} files, {size}, from {manifest['source']} ({manifest['revision']})")


if __name__ == "__main__":
    stage.run(main)
