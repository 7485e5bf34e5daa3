"""Does `autocast_residual` learn what bf16 autocast learns without it? The quickstart's recipe on a CPU, both ways, with several random seeds.

    python benchmarks/train_residual.py --model results/assets/models/tiny-math --prompts results/prompts/KEY --out /tmp/residual

Two runs at a time, about six minutes on two cores. Row train.residual: accuracy on training prompts in the last ten steps both ways; its
curves are means of ten steps a seed.
"""

import argparse
import json
import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "benchmarks")]

import common  # noqa: E402
import train_seeds  # noqa: E402
from openr1_repro import config, job  # noqa: E402

WAYS = {"without": False, "autocast_residual": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an asset: manifest.json and files/")
    parser.add_argument("--prompts", type=Path, required=True, help="folder of the prepare stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # two runs share two cores: with more threads they wait for each other
    python = job.python_of("train")

    def run(way: str, seed: int) -> list[float]:
        stage = config.load(ROOT, {"variants": ["quickstart"]}).train("quickstart")
        stage["train"] |= {"autocast_residual": WAYS[way], "accelerate": {"mixed_precision": "bf16"}}
        stage["train"]["grpo"] |= {"bf16": True, "seed": seed, "save_strategy": "no"}
        folder = arguments.out / f"{way}-{seed}"
        if train_seeds.start(stage, folder, arguments.model, arguments.prompts, python).wait():
            raise SystemExit(f"a run failed: see {folder}/out.log")
        return train_seeds.curve(folder, "rewards/accuracy/mean", steps=10)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: run(*pair), product(WAYS, arguments.seeds)))
    curves = {pair: values for pair, values in zip(product(WAYS, arguments.seeds), found, strict=True)}
    apart = [
        ours - peer
        for seed in arguments.seeds
        for ours, peer in zip(curves["autocast_residual", seed], curves["without", seed], strict=True)
    ]
    last = {way: statistics.mean(curves[way, seed][-1] for seed in arguments.seeds) for way in WAYS}
    common.write_row(
        "train.residual", "accuracy", last["autocast_residual"], "without", last["without"],
        mean_difference=round(statistics.mean(apart), 4), largest_difference=round(max(map(abs, apart)), 4),
        curves={way: {seed: curves[way, seed] for seed in arguments.seeds} for way in WAYS},
    )  # fmt: skip
    means = {way: [round(statistics.mean(window), 3) for window in zip(*(curves[way, s] for s in arguments.seeds), strict=True)] for way in WAYS}  # fmt: skip
    print(json.dumps(means))


if __name__ == "__main__":
    main()
