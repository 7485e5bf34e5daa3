"""Timing two commands side by side, and the rows that every benchmark leaves in ``benchmarks/results/``."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """The machine in words: processor, cores, memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"


def alternate(ours: Callable[[], object], peer: Callable[[], object], runs: int = 5) -> tuple[float, float]:
    """Median seconds of ``ours`` and ``peer``, run in turn so that a drift of the machine hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for index, function in enumerate((ours, peer)):
            start = time.perf_counter()
            function()
            seconds[index].append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def write_row(
    name: str,
    unit: str,
    ours: float,
    peer: str | None = None,
    peer_value: float | None = None,
    higher_is_better: bool = True,
    **extra: object,
) -> None:
    """Print one result and keep it in ``results/<first part of name>.json``, replacing an older row of the same name.

    ``ratio`` is above 1 when ours is better, whichever way the unit points. ``extra`` goes into the row as it is.
    """
    ratio = None
    if peer_value is not None:
        ratio = ours / peer_value if higher_is_better else peer_value / ours
    row = {
        "name": name, "unit": unit, "ours": ours, "peer": peer, "peer_value": peer_value, "ratio": ratio,
        "machine": machine(), "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]), **extra,
    }  # fmt: skip
    path = RESULTS / f"{name.split('.')[0]}.json"
    rows = [r for r in json.loads(path.read_text()) if r["name"] != name] if path.exists() else []
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(sorted([*rows, row], key=lambda r: r["name"]), indent=1) + "\n")
    against = f" | {peer}: {peer_value:.4g} | ratio {ratio:.2f}" if ratio is not None else ""
    print(f"{name}: {ours:.4g} {unit}{against}")
