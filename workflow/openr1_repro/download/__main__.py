"""Fetch one asset from the first source that can give it whole, and write down what it is.

    python -m openr1_repro.download --settings '{"asset": …, "name": …, "download": …, "lock": null}' --output results/assets/models/NAME

The output folder gets ``files/`` (the repository's tree) and ``manifest.json``, written last: source, repository, revision (a commit),
and name, size and SHA-256 of every file. Sources are tried in order; one that refuses, hangs, stalls or sends wrong bytes is left for
the next, with a line saying why. Whatever arrived waits in ``.work/`` and is used by the next source or the next run.
"""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openr1_repro import stage
from openr1_repro.download import files, local
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
    """Bring the asset to ``output`` and give its manifest; nothing is fetched that is there already.

    Raises:
        stage.UserError: if no source could give it, with what each of them said.
    """
    output.mkdir(parents=True, exist_ok=True)
    work = output / ".work"
    said = []
    for source in job.asset.sources or job.download.sources:
        try:
            manifest = _fetch(job, source, work)
        except SourceError as error:
            said.append(f"{job.name}: {source}: {error}")
            print(said[-1], flush=True)
            continue
        _publish(manifest, work, output)
        return manifest
    raise stage.UserError("\n".join([f"{job.name}: no source could give {job.asset.repo}", *said]))


def _fetch(job: JobSettings, source: str, work: Path) -> dict[str, Any]:
    asset = job.asset
    pinned = job.lock["files"] if job.lock else None
    if source == "package":
        built = work / "built"
        shutil.rmtree(built, ignore_errors=True)
        version = local.build(asset, built)
        folder, repository, revision = built, asset.package.requirement, version
    else:
        root = local.EMBEDDED_HUB if source == "embedded" else Path(job.download.folder)
        folder, repository, revision = local.folder_of(root, asset), asset.repo, None
    chosen = files.choose(local.listing(folder), asset, pinned)
    missing = [file for file in chosen if not files.is_right(work / "files" / file.path, file)]
    files.check_room(work.parent, sum(file.size for file in missing))
    for file in missing:
        files.place(folder / file.path, work / "files" / file.path)
    entries = [{"path": f.path, "size": f.size, "sha256": files.check(work / "files" / f.path, f)} for f in chosen]
    return {
        "name": job.name, "kind": asset.kind, "source": source, "repository": repository,
        "revision": revision or f"content-{stage.digest(entries)}", "files": entries,
    }  # fmt: skip


def _publish(manifest: dict[str, Any], work: Path, output: Path) -> None:
    """Move the fetched files into place; the manifest comes last, so that it never describes files that are not there."""
    (output / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(output / "files", ignore_errors=True)
    (work / "files").rename(output / "files")
    stage.write_json(output / "manifest.json", manifest)
    shutil.rmtree(work)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m openr1_repro.download", description="Fetch one asset.")
    stage.add_settings_argument(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for manifest.json and files/")
    arguments = parser.parse_args()
    manifest = download(stage.parse_settings(arguments.settings, JobSettings), arguments.output)
    size = sum(file["size"] for file in manifest["files"])
    print(f"{manifest['name']}: {len(manifest['files'])} files, {files.in_words(size)}, from {manifest['source']} ({manifest['revision']})")


if __name__ == "__main__":
    stage.run(main)
