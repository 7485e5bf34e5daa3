"""Checkpoints on disk: whole or absent, proved by their digests, and published as plain Hugging Face folders.

A working checkpoint is ``<work>/checkpoints/step-N`` with what resuming needs (weights, optimizer, schedule, random states) and
``digests.json``, written last. A folder without it, or whose files differ from it, is not used.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from openr1_repro.stage import file_sha256, write_json

DIGESTS = "digests.json"
# What only resuming needs: the optimizer is 2 to 3 times the weights, so it is neither published nor kept for long.
RESUME_ONLY = (
    "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state*.pth", "rollout-*.pt", "trainer_state.json",
    "training_args.bin", "entropy_ctrl_state.json", "global_step*", "latest", "zero_to_*.py", DIGESTS,
)  # fmt: skip
WEIGHTS = ("*.safetensors",)


def step_of(folder: Path) -> int:
    """The optimizer step in a checkpoint's name (``step-120`` → 120)."""
    return int(folder.name.rsplit("-", 1)[1])


def listed(folder: Path) -> list[Path]:
    """The checkpoints in ``folder`` by step, oldest first; temporary folders are not among them."""
    return sorted((f for f in folder.glob("step-*") if re.fullmatch(r"step-\d+", f.name) and f.is_dir()), key=step_of)


def seal(folder: Path) -> None:
    """Write the digests of every file of a finished checkpoint, flushed to the disk before the caller renames it into place."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    write_json(
        folder / DIGESTS,
        {str(f.relative_to(folder)): {"size": f.stat().st_size, "sha256": file_sha256(f)} for f in files},
    )


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if every file is as it was sealed."""
    if not (folder / DIGESTS).exists():
        return "half-written (no digests)"
    try:
        digests: dict[str, dict[str, Any]] = json.loads((folder / DIGESTS).read_text())
    except json.JSONDecodeError:
        return "half-written (digests cut short)"
    for name, expected in digests.items():
        file = folder / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} bytes, not {expected['size']}"
        if file_sha256(file) != expected["sha256"]:
            return f"{name} differs from its digest"
    return None


def can_resume(folder: Path) -> bool:
    """Whether a checkpoint still holds the optimizer's state."""
    return (folder / "trainer_state.json").exists()


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that training can resume from; damaged ones are named, and deleted so that they are not published."""
    for checkpoint in reversed(listed(folder)):
        wrong = fault(checkpoint)
        if wrong:
            print(f"checkpoint {checkpoint.name} is damaged and not used: {wrong}", flush=True)
            shutil.rmtree(checkpoint)
        elif can_resume(checkpoint):
            return checkpoint
    return None


def drop_resume_state(folder: Path) -> None:
    """Reduce a working checkpoint to what evaluation needs, and seal it anew."""
    for pattern in RESUME_ONLY:
        for file in folder.glob(pattern):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    seal(folder)


def prune(folder: Path, limit: int | None, resumable: int) -> None:
    """Keep the newest ``limit`` checkpoints (None: all), and the optimizer's state in the newest ``resumable`` of them."""
    checkpoints = listed(folder)
    for checkpoint in checkpoints[: -limit if limit else 0]:
        shutil.rmtree(checkpoint)
    for checkpoint in listed(folder)[:-resumable]:
        if can_resume(checkpoint):
            drop_resume_state(checkpoint)


def weights_sha256(folder: Path) -> str:
    """One SHA-256 for a model's weights: of the file, or of the list of its shards' digests."""
    digests = [file_sha256(file) for pattern in WEIGHTS for file in sorted(folder.glob(pattern))]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def publish(work: Path, output: Path, card: str) -> list[dict[str, Any]]:
    """Fill ``output`` with the results in ``work``: checkpoints as plain model folders (hard links where the file system allows), the log,
    completions and a list of the checkpoints.

    ``card`` is the model card's text; ``{step}`` in it is replaced.

    Returns:
        The rows of ``checkpoints.json``: name, step, sha256 of the weights.
    """
    rows = []
    for checkpoint in listed(work / "checkpoints"):
        target = output / "checkpoints" / checkpoint.name
        ignored = shutil.ignore_patterns(*RESUME_ONLY, "README.md", *(["adapter_*"] if is_adapter(checkpoint) else []))
        shutil.copytree(checkpoint, target, copy_function=link, ignore=ignored)
        if is_adapter(checkpoint):
            merge(checkpoint, target)
        (target / "README.md").write_text(card.replace("{step}", str(step_of(checkpoint))), encoding="utf-8")
        rows.append({"name": checkpoint.name, "step": step_of(checkpoint), "sha256": weights_sha256(target)})
    shutil.copy2(work / "log.jsonl", output / "log.jsonl")
    if (work / "completions").exists():
        shutil.copytree(work / "completions", output / "completions", copy_function=link)
    write_json(output / "checkpoints.json", rows)
    return rows


def is_adapter(checkpoint: Path) -> bool:
    """Whether a checkpoint holds LoRA weights only."""
    return (checkpoint / "adapter_config.json").exists()


def merge(checkpoint: Path, target: Path) -> None:
    """Write the whole model, base and adapter together, into ``target``: what evaluation and anyone else can load as it is."""
    from peft import AutoPeftModelForCausalLM  # seconds to import, and only LoRA runs need it

    AutoPeftModelForCausalLM.from_pretrained(checkpoint, dtype="auto").merge_and_unload().save_pretrained(target)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def link(source: str, target: str) -> None:
    """Hard-link a file, or copy it where the file system differs."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
