"""The train stage as a command: start it, wait for what it says, read what it leaves."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TIMES = ("time/", "tokens_per_second", "memory/", "reward_engine/", "step_time")


def start(inputs, folder, settings, gpus="", pause=0.0):
    """The command as a process that sees ``gpus``; its output goes to ``<folder>/out.log``.

    ``pause``: seconds that `tiny.digits` adds to each step: a run that a test interrupts must not end before it does.
    """
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": gpus,
        "TINY_PAUSE": str(pause),
        "OPENR1_REPRO_GPU_LOCKS": str(folder / "locks"),  # tests share a GPU, jobs do not
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "workflow"), str(HERE), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [sys.executable, "-m", "openr1_repro.train", "--settings", f"@{folder}/settings.json"]
    command += ["--model", str(inputs / "model"), "--prompts", str(inputs / "prompts")]
    command += ["--work", str(folder / "work"), "--output", str(folder / "training")]
    return subprocess.Popen(command, env=environment, stdout=open(folder / "out.log", "ab"), stderr=subprocess.STDOUT)


def train(inputs, folder, settings, gpus=""):
    """Run the command to its end: exit status and all it printed."""
    status = start(inputs, folder, settings, gpus).wait(timeout=900)
    return status, (folder / "out.log").read_text()


def wait_for(folder, text, process, seconds=900):
    deadline = time.time() + seconds
    while text not in (folder / "out.log").read_text():
        assert process.poll() is None, (folder / "out.log").read_text()
        assert time.time() < deadline, (folder / "out.log").read_text()
        time.sleep(0.05)


def log_of(folder):
    """The log without what a clock or the operating system measured."""
    rows = [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in rows]


def weights_of(folder):
    return {row["name"]: row["sha256"] for row in json.loads((folder / "training" / "checkpoints.json").read_text())}


def children_gone(folder):
    """Whether no process of this run is left."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            commands.append(file.read_bytes().decode(errors="replace"))
    return not any(str(folder / "work") in command for command in commands)
