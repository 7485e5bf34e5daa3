"""What every stage's command shares: settings from the command line, errors for people, outputs that are whole or absent."""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class UserError(Exception):
    """A mistake that the user can mend: the message names the file, the key or row, and the fix. Shown without a traceback."""


class Settings(BaseModel):
    """Base of every section of the config: unknown keys are errors, values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Chat(Settings):
    """How a problem becomes a prompt: the same for training and for every evaluation of a variant."""

    template: str | None = None
    """The chat template, Jinja text; null: the model's own."""
    system_prompt: str | None = None
    """Text of the system message put before every problem; null: none."""


def add_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--settings``: a section of the config as JSON text, or ``@file`` with the same."""
    parser.add_argument("--settings", required=True, help="the stage's section of the config: JSON, or @file")


def parse_settings(text: str, model: type[SettingsT]) -> SettingsT:
    """Validate ``--settings`` against the stage's own model.

    Raises:
        UserError: naming every key that is wrong.
    """
    source = "--settings"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text()
        except OSError as error:
            raise UserError(f"{source}: cannot be read ({error.strerror})") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        lines = [f"{source}: {'.'.join(map(str, e['loc'])) or '(whole)'}: {e['msg']}" for e in error.errors()]
        raise UserError("\n".join(lines)) from None


def run(main: Callable[[], Any]) -> None:
    """Run a stage's ``main`` as a process: a ``UserError`` becomes lines on stderr and exit status 1, no traceback."""
    try:
        main()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside ``path`` to write a file or folder at; renamed over ``path`` on success, removed on failure.

    The old output, if any, stays in place until the new one is whole.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        draft = holder / final.name
        yield draft
        if draft.is_dir() and final.is_dir():
            final.rename(holder / "old")  # a folder cannot be renamed over a full one
        draft.rename(final)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as stable, readable JSON (keys in the order given), whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}); delete it and rerun the stage that writes it"
        ) from None


def digest(value: Any) -> str:
    """A short stable name (12 hex digits of SHA-256) for any JSON-able value: how shared outputs are keyed."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
