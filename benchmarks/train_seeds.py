"""Do the fast settings learn what the seed's way of working learns? The same recipe both ways, with several random seeds.

    PYTHONPATH=workflow python benchmarks/train_seeds.py --model results/warm-starts/KEY --prompts results/prompts/KEY --out /tmp/seeds

Every run is the train stage with the variant's recipe (smollm2-warm), `--steps` long; all run at once on one GPU, so their seconds mean
nothing. "seed-like": TRL's engine, recomputed log-probabilities, a generation for every step, small batches, gradient checkpointing. These
start one after the other: that engine measures the GPU's free memory while it starts, and takes what another process claims or gives
back meanwhile for its own. "fast": an engine process of its own with a given KV cache, its log-probabilities as the old policy's, four optimizer
steps a generation, large batches. These start last, at once. Row train.seeds: mean reward of the last quarter both ways; its curves are
means of four steps a seed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "benchmarks")]

COMPLETIONS = 256
# Steps that share a generation in the fast way: with one seed both ways have the same prompts in each window.
WINDOW = 4
WAYS = {
    "seed-like": (
        {"per_device_train_batch_size": 16, "gradient_checkpointing": True},
        {"fast_generation": False, "old_logprobs": "recompute", "vllm": {}},
    ),
    "fast": (
        {"per_device_train_batch_size": 32, "steps_per_generation": 32, "gradient_checkpointing": False},
        {"fast_generation": True, "old_logprobs": "sampler", "vllm": {"kv_cache_memory_bytes": 3 << 30}},
    ),
}


def settings_of(variant: str, way: str, seed: int, steps: int, memory: float) -> dict:
    """The train stage's settings: the variant's, the way of working and the seed replaced."""
    from openr1_repro import config

    stage = config.load(ROOT, {"variants": [variant]}).train(variant)
    grpo, other = WAYS[way]
    stage["train"] |= {"completions_per_step": COMPLETIONS, **other}
    stage["train"]["grpo"] |= {
        "max_steps": steps,
        "save_strategy": "no",
        "seed": seed,
        "vllm_gpu_memory_utilization": memory,
        **grpo,
    }
    return stage


def start(stage: dict, folder: Path, model: Path, prompts: Path, python: str = sys.executable) -> subprocess.Popen:
    """The train stage in ``folder``, its lease of the GPU its own: the runs share one."""
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(stage))
    command = [python, "-m", "openr1_repro.train", "--settings", f"@{folder}/settings.json", "--model", str(model)]
    command += ["--prompts", str(prompts), "--work", str(folder / "work"), "--output", str(folder / "training")]
    path = os.pathsep.join([str(ROOT / "workflow"), os.environ.get("PYTHONPATH", "")])
    environment = {
        "OMP_NUM_THREADS": "2",
        **os.environ,
        "PYTHONPATH": path,
        "OPENR1_REPRO_GPU_LOCKS": str(folder / "locks"),
    }
    return subprocess.Popen(command, env=environment, stdout=open(folder / "out.log", "wb"), stderr=subprocess.STDOUT)


def has_measured(folder: Path) -> bool:
    """Whether the run's engine has its KV cache, so that its start no longer looks at the GPU's free memory: all graphs are captured."""
    return bool(re.search(rb"CUDA graphs \(FULL\): 100%", (folder / "out.log").read_bytes())) or bool(curve(folder))


def curve(folder: Path, key: str = "reward", steps: int = WINDOW) -> list[float]:
    """Mean of ``key`` over every so many steps; where they share a generation only the first of them has a reward."""
    log = folder / "work" / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    windows = [rows[start : start + steps] for start in range(0, len(rows), steps)]
    return [round(statistics.mean(row[key] for row in window if row.get(key) is not None), 4) for window in windows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an asset: manifest.json and files/")
    parser.add_argument("--prompts", type=Path, required=True, help="folder of the prepare stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="smollm2-warm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--memory", type=float, default=0.08, help="vllm_gpu_memory_utilization of each run")
    parser.add_argument("--deadline", type=float, default=1800.0, help="seconds after which what is there is reported")
    arguments = parser.parse_args()
    ends = time.time() + arguments.deadline
    runs = {}
    for way in WAYS:
        for seed in arguments.seeds:
            folder = arguments.out / f"{way}-{seed}"
            stage = settings_of(arguments.variant, way, seed, arguments.steps, arguments.memory)
            runs[way, seed] = run = start(stage, folder, arguments.model, arguments.prompts)
            while way == "seed-like" and not has_measured(folder) and run.poll() is None and time.time() < ends:
                time.sleep(0.2)
        print(f"{way}: started", flush=True)
    while time.time() < ends and any(run.poll() is None for run in runs.values()):
        time.sleep(1.0)
    for run in runs.values():
        run.terminate()
    curves = {way: {seed: curve(arguments.out / f"{way}-{seed}") for seed in arguments.seeds} for way in WAYS}
    (arguments.out / "curves.json").write_text(json.dumps(curves, indent=1))
    print(json.dumps(curves))
    shortest = min(len(values) for seeds in curves.values() for values in seeds.values())
    if shortest < 4:
        raise SystemExit(f"too few steps to compare; logs are in {arguments.out}/*/out.log")
    last = slice(shortest - max(1, shortest // 4), shortest)
    ends_at = {way: [statistics.mean(values[last]) for values in seeds.values()] for way, seeds in curves.items()}
    import common

    common.write_row(
        "train.seeds", "reward", statistics.mean(ends_at["fast"]), "seed-like", statistics.mean(ends_at["seed-like"]),
        spread={way: round(statistics.stdev(values), 4) if len(values) > 1 else None for way, values in ends_at.items()},
        curves=curves, steps=shortest * WINDOW,
    )  # fmt: skip


if __name__ == "__main__":
    main()
