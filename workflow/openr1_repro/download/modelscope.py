"""ModelScope through ``modelscope_hub``, the client inside ``modelscope`` (its command is this too, and it starts in half
the time): run by ``client.py``'s protocol."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelscope_hub import HubApi, ProgressCallback, _download
from modelscope_hub.errors import FileIntegrityError, FileSizeMismatchError

from openr1_repro.download.client import Hub, Order, serve
from openr1_repro.download.files import File, SourceError, WrongBytes, listing

# Wrong bytes are a reason to ask the next source, not to ask for the same again in silence.
_download.DOWNLOAD_HASH_RETRY_TIMES = _download.DOWNLOAD_SIZE_RETRY_TIMES = 1


def connect(order: Order) -> Hub:
    """The hub that ``order`` names."""
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"  # as hub.py sets it, whatever the user wrote
    api: Any = HubApi(endpoint=order.endpoint)
    revision = order.revision

    def list_files() -> tuple[str, list[File]]:
        if offline:
            return revision, listing(
                api.download_repo(order.repo, order.kind, revision=revision, local_files_only=True)
            )
        entries = [
            e for e in api.legacy.list_repo_files(order.repo, order.kind, revision=revision) if e.get("Type") != "tree"
        ]
        if link := next((e["Path"] for e in entries if str(e.get("Mode")) in ("40960", "120000")), None):
            raise SourceError(f"{link}: a link, which is not followed")
        # Branches move; the newest commit that touched a file is the commit of what is listed.
        newest: dict[str, Any] = max(entries, key=lambda e: e.get("CommittedDate") or 0, default={})
        commit = str(newest.get("Revision") or "")
        files = [File(e["Path"], e["Size"], e.get("Sha256") or None) for e in entries]
        return commit if re.fullmatch(r"[0-9a-f]{40}", commit) else revision, files

    def cached(file: File) -> Path | None:
        try:
            return api.download_file(order.repo, order.kind, file.path, revision=revision, local_files_only=True)
        except Exception:  # the client has several ways to say that it is not there
            return None

    def fetch(file: File, partial: Path, target: Path, count: Callable[[int], None]) -> str | None:
        counted = 0

        class Counting(ProgressCallback):
            def update(self, size: int) -> None:
                nonlocal counted
                counted += size
                count(size)

        folder = Path(str(target).removesuffix(file.path))
        try:
            # The client goes on from <target>.incomplete, which is ``partial``, and checks size and hash.
            api.downloader.download_file(
                order.repo, order.kind, file.path, revision=revision, local_dir=folder,
                file_size=file.size, expected_sha256=file.sha256, progress_callbacks=[Counting],
            )  # fmt: skip
        except BaseException as error:
            count(-counted)
            if isinstance(error, FileIntegrityError):
                if {f.path: f for f in list_files()[1]}.get(file.path) != file:
                    raise SourceError(f"{file.path}: changed at the hub while it was fetched", again=True) from None
                if isinstance(error, FileSizeMismatchError):
                    raise WrongBytes(f"{file.path}: wrong length: {error.message.split(' (')[0]}") from None
                raise WrongBytes(
                    f"{file.path}: wrong bytes: announced was SHA-256 {(file.sha256 or '?')[:12]}…"
                ) from None
            raise
        return file.sha256

    return Hub(list_files, cached, fetch)


if __name__ == "__main__":
    serve(connect)
