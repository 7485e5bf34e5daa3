"""Run one stage as the workflow runs it: in the environment of its lock, its output on the terminal and in a log.

    python -m openr1_repro.job --env train --log logs/quickstart/train.log --label "train quickstart" -- \\
        -m openr1_repro.train --settings …

The environment is a virtual environment under ``.envs/``, named after the lock's digest: made when it is missing, never an
input or output of a rule, so deleting it reruns nothing. ``--env workflow`` is the Python that runs this. Where packages cannot be
installed (a cluster's module, a container), ``OPENR1_REPRO_PYTHON=/path/to/python`` runs every stage with that Python instead.
"""

import argparse
import fcntl
import hashlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from openr1_repro.process import die_with_parent
from openr1_repro.stage import UserError, run

LOCKS = Path(__file__).parents[2] / "envs"
TAIL_LINES = 20
PROGRESS_SECONDS = 2.0


def python_of(name: str) -> str:
    """The Python of environment ``name`` (``envs/<name>.txt``), made first if it is missing.

    Raises:
        UserError: if the lock does not exist or cannot be installed.
    """
    if os.environ.get("OPENR1_REPRO_PYTHON"):
        return os.environ["OPENR1_REPRO_PYTHON"]
    if name == "workflow":
        return sys.executable
    lock = LOCKS / f"{name}.txt"
    if not lock.exists():
        raise UserError(f"{lock}: no such lock; run `make lock`")
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = Path(os.environ.get("OPENR1_REPRO_ENVS", ".envs"))
    environment = home / f"{name}-{digest}"
    ready = environment / ".ready"
    if not ready.exists():
        home.mkdir(parents=True, exist_ok=True)
        with open(home / f".{name}.lock", "w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # two stages may want the same environment at once
            if not ready.exists():
                print(f"installing {lock.name} into {environment} (once)", flush=True)
                uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
                for command in (
                    [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)],
                    [uv, "pip", "install", "--quiet", "--python", f"{environment}/bin/python", "--require-hashes",
                     "--compile-bytecode", "-r", str(lock)],
                ):  # fmt: skip
                    if subprocess.run(command).returncode:
                        raise UserError(f"{lock}: could not be installed; see the lines above, then rerun")
                ready.touch()
    return str((environment / "bin" / "python").absolute())


def main() -> None:
    """Run the command after ``--``, mirror what it prints, and explain a failure."""
    parser = argparse.ArgumentParser(description="Run a stage in its environment, with a log.")
    parser.add_argument("--env", required=True, help="name of a lock in envs/, without .txt")
    parser.add_argument("--log", required=True, type=Path, help="file that keeps all the stage prints")
    parser.add_argument("--label", default="", help="put before every line on the terminal")
    parser.add_argument("command", nargs="+", help="what to give Python, after --")
    arguments = parser.parse_args()

    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    command = [python_of(arguments.env), *arguments.command]
    environment = {
        "VLLM_NO_USAGE_STATS": "1",  # no connection that nobody asked for
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait make a busy machine fifty times slower
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    prefix = f"{arguments.label} | " if arguments.label else ""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with open(arguments.log, "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda received, _: child.send_signal(received))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child by itself: it is in the same group
        shown = 0.0
        assert child.stdout is not None
        # newline="" keeps "\r" as an ending of its own: a progress bar's
        for line in io.TextIOWrapper(child.stdout, encoding="utf-8", errors="replace", newline=""):
            text = line.rstrip("\r\n")
            if line.endswith("\r"):
                if not text.strip() or time.monotonic() - shown < PROGRESS_SECONDS:
                    continue
                shown = time.monotonic()
            log.write(text + "\n")
            log.flush()
            tail.append(text)
            print(prefix + text, flush=True)
        code = child.wait()
    if code:
        what = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        alone = shlex.join(["python", "-m", "openr1_repro.job", *sys.argv[1:]])
        print(f"\n{prefix}failed with {what}. The end of {arguments.log}:", file=sys.stderr)
        print("\n".join(f"    {text}" for text in tail), file=sys.stderr)
        print(f"{prefix}to run this step alone:\n    PYTHONPATH=workflow {alone}\n", file=sys.stderr, flush=True)
        raise SystemExit(code if code > 0 else 128 - code)


if __name__ == "__main__":
    run(main)
