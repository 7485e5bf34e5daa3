"""The server layout's vLLM: started on GPUs of its own, waited for, and always stopped."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from openr1_repro.gpus import Lease
from openr1_repro.stage import UserError
from openr1_repro.train.launch import in_new_session
from openr1_repro.train.settings import TrainSettings


@dataclass(frozen=True)
class Served:
    """What training needs to know of the server; empty where there is none."""

    environment: dict[str, str] = field(default_factory=dict)
    """For the training processes."""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """To watch, by name."""


def command(settings: TrainSettings, model: Path, port: int) -> list[str]:
    """The command line of ``vllm serve`` as TRL's client needs it (see ``trl.generation.vllm_client``)."""
    options = {
        "weight_transfer_config": {"backend": "nccl"},
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": -1,
        **settings.vllm,
    }
    words = [
        sys.executable,
        "-m",
        "vllm.entrypoints.cli.main",
        "serve",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        elif value is not None:
            words += [flag, json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return words


@contextlib.contextmanager
def serving(settings: TrainSettings, model: Path, work: Path, lease: Lease) -> Iterator[Served]:
    """Run the server on the last GPUs of ``lease`` while inside; nothing with another layout.

    Raises:
        UserError: if it does not answer within TRL's `vllm_server_timeout`, or ends by itself.
    """
    if settings.layout != "server":
        yield Served()
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    devices = ",".join(lease.devices[-settings.num_serving_gpus :])
    with open(work / "vllm.log", "ab") as log:
        process = subprocess.Popen(
            command(settings, model, port),
            env={
                **os.environ,
                "CUDA_VISIBLE_DEVICES": devices,
                "VLLM_SERVER_DEV_MODE": "1",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=lease.locks,
            preexec_fn=in_new_session,
        )
    try:
        print(f"starting vLLM on GPU {devices} (log: {work / 'vllm.log'})", flush=True)
        wait_until_healthy(url, process, settings.option("vllm_server_timeout"), work / "vllm.log", work / "stop")
        yield Served({"OPENR1_REPRO_VLLM_SERVER": url}, {"the vLLM server": process})
    finally:
        stop(process)


def wait_until_healthy(
    url: str, process: "subprocess.Popen[bytes]", seconds: float, log: Path, stop_file: Path
) -> None:
    """Wait for the server's ``/health``.

    Raises:
        UserError: if it ends, is too slow, or the run is told to stop meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"{url}/health", timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        if process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise UserError(
                f"the vLLM server ended with status {process.returncode} before it answered; the end of {log}:\n{tail}"
            )
        if stop_file.exists():
            raise UserError("told to stop before training began: run the same command to start again")
        if time.monotonic() > deadline:
            raise UserError(
                f"the vLLM server did not answer within {seconds:.0f} s: see {log}, or raise `grpo` → `vllm_server_timeout`"
            )
        time.sleep(1.0)


def stop(process: "subprocess.Popen[bytes]", grace_seconds: float = 10.0) -> None:
    """End the server and everything it started: asked first, killed if it does not listen."""
    for number, wait in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, grace_seconds)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            if number == signal.SIGKILL:
                return


def free_port() -> int:
    """A TCP port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
