"""Starting and watching the training processes: accelerate's config, the child, its heartbeats, its end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from openr1_repro.process import SUPERVISOR, die_with_parent
from openr1_repro.stage import UserError, read_json, write_json
from openr1_repro.train import checkpoints
from openr1_repro.train.settings import TrainSettings

EXIT_STOPPED = 75  # EX_TEMPFAIL: asked to stop, saved, and a rerun goes on
POLL_SECONDS = 0.2
LOADING_SECONDS = 1800.0  # reading a model and starting an engine, at most


def accelerate_config(settings: TrainSettings) -> dict[str, Any]:
    """accelerate's config file for ``settings``: the variant's keys as they are, and what must be said for the rest.

    The file is JSON, which is YAML. Several processes on CPUs are launched as MULTI_GPU: accelerate has torchrun start ranks for that
    type alone, and each rank finds out from `use_cpu` that it is on a CPU.
    """
    several = settings.num_processes > 1
    torchrun = several or "deepspeed_config" in settings.accelerate
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if several else "NO",
        "num_processes": settings.num_processes,
        "num_machines": 1,
        "mixed_precision": "bf16" if settings.option("bf16") is not False and settings.uses_gpus else "no",
        "use_cpu": not settings.uses_gpus,
        "main_process_port": 0 if torchrun else None,  # 0: a free one
        **settings.accelerate,
    }
    if deepspeed := settings.accelerate.get("deepspeed_config"):
        config["distributed_type"] = "DEEPSPEED"
        # ZeRO-3 would else save shards that only DeepSpeed can read.
        config["deepspeed_config"] = {"zero3_save_16bit_model": deepspeed.get("zero_stage") == 3, **deepspeed}
    if config["num_machines"] > 1:
        config.setdefault("main_process_ip", socket.gethostname())  # the supervisor runs on the job's first node
        config["main_process_port"] = (
            config["main_process_port"] or 20000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10000
        )
    return {name: value for name, value in config.items() if value is not None}


def launcher(machines: int) -> list[str]:
    """The command that runs accelerate's launcher here, or once on each node of this SLURM job.

    Raises:
        UserError: if there are several machines and no SLURM to start anything on them.
    """
    launch = "accelerate.commands.launch"
    if machines == 1:
        return [sys.executable, "-m", launch]
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"`accelerate` → `num_machines: {machines}`: several machines are started through SLURM, and this is no SLURM job;"
            " run with `--profile profiles/slurm` (docs/train.md, several nodes)"
        )
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    words = [
        "srun",
        "--overlap",
        f"--nodes={machines}",
        f"--ntasks={machines}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
    ]
    words += [f"--cpus-per-task={cores}"] if cores else []
    return [*words, "bash", "-c", f'exec "$0" -m {launch} --machine_rank "$SLURM_NODEID" "$@"', sys.executable]


@contextlib.contextmanager
def stopping_at_signals(work: Path) -> Iterator[Callable[[], str | None]]:
    """While inside, SIGTERM, SIGINT and SIGUSR1 write ``<work>/stop``: training saves at the end of its step and ends.

    Yields:
        A function that names the signal that came, None if none did.
    """
    came: list[str] = []

    def on_signal(number: int, frame: Any) -> None:
        if came and number == signal.SIGINT:  # a second Ctrl-C: at once
            raise KeyboardInterrupt
        came.append(signal.Signals(number).name)
        (work / "stop").touch()
        print(f"{came[-1]}: saving at the end of this step, then stopping", flush=True)

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def in_new_session() -> None:
    """In a child, before its program starts: die with the supervisor, and leave its signals to it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()


def run_training(
    settings: TrainSettings,
    work: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    locks: Sequence[int] = (),
    others: Mapping[str, "subprocess.Popen[bytes]"] | None = None,
    module: str = "openr1_repro.train.grpo",
) -> int:
    """Run ``module`` under ``accelerate launch`` until it ends.

    Args:
        settings: what to launch.
        work: folder of the heartbeats; ``accelerate.json`` is written there.
        arguments: for the module.
        environment: added to this process's own.
        locks: file descriptors that the children must keep open (see ``gpus.lease``).
        others: processes that must outlive training, by name (the vLLM server).
        module: what every rank runs.

    Returns:
        The exit status.

    Raises:
        UserError: if a rank hangs or one of ``others`` dies; everything started here is ended first.
    """
    write_json(work / "accelerate.json", accelerate_config(settings))
    for beat in (work / "heartbeat").glob("rank-*"):
        beat.unlink()
    machines = settings.num_machines
    command = [*launcher(machines), "--config_file", str(work / "accelerate.json"), "--quiet", "-m", module, *arguments]
    started = time.time()
    threads = max(1, (os.cpu_count() or 1) * machines // settings.num_processes)
    child = subprocess.Popen(
        command,
        env={
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            **os.environ,
            **({SUPERVISOR: str(os.getpid())} if machines == 1 else {}),  # other machines have other process numbers
            **environment,
        },
        start_new_session=True,
        pass_fds=locks,
        preexec_fn=in_new_session,
    )
    try:
        while child.poll() is None:
            time.sleep(POLL_SECONDS)
            for name, process in (others or {}).items():
                if process.poll() is not None:
                    raise UserError(
                        f"{name} ended by itself (exit status {process.returncode}): its log is {work / 'vllm.log'}"
                    )
            hung = hung_ranks(work, settings.watchdog_minutes * 60, started)
            if hung:
                os.killpg(child.pid, signal.SIGUSR2)  # each rank prints where it stands
                time.sleep(2.0)
                raise UserError(
                    f"no progress for {settings.watchdog_minutes:g} minutes: "
                    + "; ".join(hung)
                    + ". The ranks' stacks stand above."
                    " If steps are this long, raise `watchdog_minutes`; else a rank or the network between GPUs hangs: rerun to resume"
                )
        return child.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # ranks that a dead launcher left behind, too
        child.wait()


def hung_ranks(work: Path, seconds: float, started: float) -> list[str]:
    """The ranks whose heartbeat is older than ``seconds``, each with its last word; before the first, they are loading."""
    now = time.time()
    if now - started > LOADING_SECONDS and not any((work / "heartbeat").glob("rank-*")):
        return ["no process got as far as training"]
    return [
        f"{beat.name} has been at `{beat.read_text()}`"
        for beat in sorted((work / "heartbeat").glob("rank-*"))
        if now - beat.stat().st_mtime > seconds
    ]


def check_finished(work: Path, status: int, signal_name: str | None) -> None:
    """Return if training did its last step.

    What it wrote at its end counts, not its exit status: a rank may still be aborted on its way out, by a thread of Gloo's for one.

    Args:
        work: folder of the checkpoints and of what training wrote at its end.
        status: what `run_training` returned.
        signal_name: the signal that asked to stop, None if none did.

    Raises:
        SystemExit: with `EXIT_STOPPED`, if training was asked to stop.
        UserError: if it broke off, with its own word on why, if it had one.
    """
    facts = read_json(work / "facts.json") if (work / "facts.json").exists() else None
    if facts and facts["steps"] >= facts["max_steps"]:
        return
    saved = checkpoints.listed(work / "checkpoints")
    if facts or signal_name:
        at = f"{saved[-1].name} is saved" if saved else "nothing was saved yet"
        print(f"stopped by {signal_name or 'a signal'}: {at}; the same command goes on from there", flush=True)
        raise SystemExit(EXIT_STOPPED)
    if (work / "failure.json").exists():
        raise UserError(read_json(work / "failure.json")["message"])
    raise UserError(
        f"training failed with status {status}: see above; where that speaks of signal 9, a rank was killed, as the system does when memory"
        f" runs out. The same command goes on from {saved[-1].name if saved else 'the start'}; {work} keeps its state"
    )
