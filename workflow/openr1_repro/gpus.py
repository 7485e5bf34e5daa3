"""Leases of GPUs by index, so that two jobs on one machine never share one: Snakemake counts GPUs and names none.

    with lease(2) as gpus:
        subprocess.run(…, env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus.devices)}, pass_fds=gpus.locks)

A lease is an advisory lock on a file per GPU. Children that inherit the lock keep it when the parent is killed, so that a GPU is free only
once nothing of its job runs any more.
"""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openr1_repro.stage import UserError


@dataclass(frozen=True)
class Lease:
    """GPUs that are ours while the lease lasts."""

    devices: list[str]
    """What CUDA_VISIBLE_DEVICES should name: indexes, or the UUIDs that the caller's own CUDA_VISIBLE_DEVICES named."""
    locks: list[int]
    """File descriptors of the locks, for `pass_fds`."""


def visible() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES where it is set, else all that ``nvidia-smi`` lists, none without it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name not in ("", "-1", "NoDevFiles")]
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return []
    return answer.stdout.split() if answer.returncode == 0 else []


def _lock_folder() -> Path:
    folder = Path(
        os.environ.get("OPENR1_REPRO_GPU_LOCKS") or Path(tempfile.gettempdir()) / f"openr1-repro-gpus-{os.getuid()}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def lease(count: int, wait_seconds: float = 600.0) -> Iterator[Lease]:
    """Take ``count`` free GPUs, waiting until as many are free; given back at the end, or when every holder of the locks is gone.

    Under SLURM the job's CUDA_VISIBLE_DEVICES is already its own (each job may see it start at 0), so nothing is locked.

    Raises:
        UserError: if the machine shows fewer than ``count`` GPUs, or none came free in ``wait_seconds``.
    """
    devices = visible()
    if len(devices) < count:
        source = "CUDA_VISIBLE_DEVICES" if "CUDA_VISIBLE_DEVICES" in os.environ else "nvidia-smi"
        raise UserError(
            f"{count} GPUs are needed and {source} shows {len(devices)}: lower `accelerate` → `num_processes` of the variant"
            " (`completions_per_step` keeps the recipe), or run on a machine with more"
        )
    if count == 0 or "SLURM_JOB_ID" in os.environ:
        yield Lease(devices[:count], [])
        return
    deadline = time.monotonic() + wait_seconds
    said = False
    while True:
        held: dict[str, int] = {}
        for device in devices:
            handle = os.open(_lock_folder() / f"{device}.lock", os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
            else:
                held[device] = handle
            if len(held) == count:
                break
        if len(held) == count:
            break
        for handle in held.values():  # hold nothing while waiting: two waiters with half each would wait for ever
            os.close(handle)
        if time.monotonic() > deadline:
            raise UserError(
                f"{count} of {len(devices)} GPUs did not come free in {wait_seconds:.0f} s: other jobs of this project hold them"
                f" (locks in {_lock_folder()}); wait for those, or run with fewer jobs at once"
            )
        if not said:
            print(f"waiting for {count} free GPUs of {len(devices)}", flush=True)
            said = True
        time.sleep(min(1.0, wait_seconds / 10))
    try:
        yield Lease(list(held), list(held.values()))
    finally:
        for handle in held.values():
            os.close(handle)
