"""Throughput and memory of the download stage against ``hf download`` and ``modelscope download``: the same loopback
server, 2 GB in 20 files, each run from nothing to a checked folder.

    PYTHONPATH=workflow python benchmarks/download.py [--folder /dev/shm] [--runs 7]

Ours is asked for both hubs in turn; each is compared with that hub's own tool, and with the faster of the two. Ours computes the SHA-256
of every byte, as does modelscope's tool; hf's does not.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import write_row

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TOOLS = {"huggingface": "hf download", "modelscope": "modelscope download"}


def timed(command: list[str], folder: Path, env: dict[str, str]) -> tuple[float, float, float]:
    """Seconds that a command takes, of the clock and of processors, and the peak memory in MB of all its processes."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks = [0.0]

    def watch() -> None:
        while not ended.wait(0.05):
            peaks.append(memory(process.pid))

    ended = threading.Event()
    threading.Thread(target=watch, daemon=True).start()
    _, status, used = os.wait4(process.pid, 0)  # at once, where polling would add up to its interval
    seconds = time.perf_counter() - start
    ended.set()
    assert status == 0, command
    return seconds, used.ru_utime + used.ru_stime, max(peaks)


def memory(pid: int) -> float:
    """Resident megabytes of a process and its descendants."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / 1e6 + sum(memory(int(child)) for child in children)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--folder", default="/dev/shm", help="where to serve from and download to; memory keeps the disk out"
    )
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        served = work / "served/models/org/big"
        served.mkdir(parents=True)
        for i in range(20):
            (served / f"model-{i + 1:05}-of-00020.safetensors").write_bytes(random.Random(i).randbytes(100_000_000))
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/download/hubs.py"), str(work / "served")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {
            "HOME": str(work / "home"), "PYTHONPATH": str(ROOT / "workflow"),
            "HF_ENDPOINT": endpoint, "MODELSCOPE_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        folder = work / "got"
        commands = {
            "hf download": [str(BIN / "hf"), "download", "org/big", "--local-dir", str(folder)],
            "modelscope download": [
                str(BIN / "modelscope"),
                "download",
                "--model",
                "org/big",
                "--local_dir",
                str(folder),
            ],
        }
        for source in TOOLS:
            asset = {"kind": "model", "repo": "org/big", "sources": [source]}
            settings = json.dumps({"name": "big", "asset": asset})
            commands[source] = [
                sys.executable,
                "-m",
                "openr1_repro.download",
                "--settings",
                settings,
                "--output",
                str(folder),
            ]
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        work_done: dict[str, list[float]] = {name: [] for name in commands}
        peaks: dict[str, float] = {}
        for _ in range(arguments.runs):
            for name, command in random.sample(sorted(commands.items()), len(commands)):
                taken, cpu, peak = timed(command, folder, env)
                seconds[name].append(taken)
                work_done[name].append(cpu)
                peaks[name] = max(peaks.get(name, 0), peak)
                print(f"{name}: {taken:.2f} s, {cpu:.2f} CPU s, {peak:.0f} MB", flush=True)
        server.stdin.close()
    finally:
        shutil.rmtree(work)
    speed = {name: 2000 / statistics.median(values) for name, values in seconds.items()}
    faster = max(speed[tool] for tool in TOOLS.values())
    extra = {
        "all_speeds": {name: round(value, 1) for name, value in speed.items()},
        "all_seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "all_cpu_seconds": {name: round(statistics.median(values), 2) for name, values in work_done.items()},
        "load_average": round(os.getloadavg()[0], 1),
    }
    for source, tool in TOOLS.items():
        of_faster = {"ratio_to_the_faster_tool": round(speed[source] / faster, 2)}
        write_row(f"download.throughput_{source}", "MB/s", speed[source], tool, speed[tool], **of_faster, **extra)
        write_row(f"download.memory_{source}", "MB", peaks[source], tool, peaks[tool], higher_is_better=False)


if __name__ == "__main__":
    main()
