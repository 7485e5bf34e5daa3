"""Completions a second of the accuracy reward, against open-r1's function on the same texts.

    OPEN_R1_CHECKOUT=… python benchmarks/rewards.py [--count 1024] [--runs 5]

Distinct: every answer once. Group: 16 completions a prompt, as GRPO samples them, whose final answers repeat the way a
half-trained model's do (a few different ones a group); the thoughts differ. Both sides read each text anew in every run.
"""

import argparse
import contextlib
import logging
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests" / "rewards"), str(ROOT / "benchmarks")]

import corpus  # noqa: E402
import open_r1  # noqa: E402
from common import write_row  # noqa: E402

from openr1_repro.rewards import RewardSet, load  # noqa: E402
from openr1_repro.rewards.settings import RewardSettings  # noqa: E402


def thoughts(chance: random.Random) -> str:
    return "\n".join(chance.choices(corpus.THOUGHTS, k=24))  # about 1,500 characters


def distinct(count: int) -> list[tuple[str, str]]:
    chance = random.Random(1)
    return [
        (gold, f"<think>\n{thoughts(chance)}\n</think>\n<answer>\n{text[-400:]}\n</answer>")
        for gold, text in corpus.pairs(count)
    ]


def groups(count: int) -> list[tuple[str, str]]:
    chance = random.Random(2)
    found = []
    for _ in range(count // 16):
        gold, answers = chance.choice(corpus.SHAPES)
        said = chance.sample(answers, min(3, len(answers)))
        for answer in chance.choices(said, weights=[6, 3, 1][: len(said)], k=16):
            text = f"<think>\n{thoughts(chance)}\n</think>\n<answer>\nThe answer is $\\boxed{{{answer}}}$\n</answer>"
            found.append((f"${gold}$", text))
    return found


def call(function, pairs):
    completions = [[{"role": "assistant", "content": text}] for _, text in pairs]
    return function(completions=completions, solution=[gold for gold, _ in pairs])


def fresh(workers: int) -> RewardSet:
    """An engine whose workers have imported SymPy and judged a few texts, and remember none of the benchmark's."""
    rewards = load(RewardSettings(reward_funcs=["accuracy"], verify_workers=workers, verify_batch_timeout=3600.0))
    for _ in range(3):
        call(rewards.reward_funcs[0], [(f"${n}$", f"\\boxed{{{n}+x}}") for n in range(8 * workers)])
    rewards.statistics()
    return rewards


def cpu_seconds(rewards: RewardSet) -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + sum(worker.cpu_seconds() for worker in rewards._pool.workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    peer = open_r1.load(os.environ["OPEN_R1_CHECKOUT"]).accuracy_reward
    cores = len(os.sched_getaffinity(0))
    count = arguments.count
    for name, pairs in (("distinct", distinct(count)), ("group_of_16", groups(count))):
        samples: dict[str, list[float]] = {}
        for _ in range(arguments.runs):  # in turn, so that a drift of the machine hits all
            for workers in sorted({1, cores, *(2**n for n in range(10) if 2**n < cores)}):
                rewards = fresh(workers)
                start, used = time.perf_counter(), cpu_seconds(rewards)
                found = call(rewards.reward_funcs[0], pairs)
                samples.setdefault(f"{workers} workers", []).append(time.perf_counter() - start)
                samples.setdefault(f"{workers} cpu", []).append(cpu_seconds(rewards) - used)
                samples.setdefault(f"{workers} p99", []).append(rewards.statistics()["accuracy"]["latency_p99"])
                rewards.close()
            start, used = time.perf_counter(), time.process_time()
            with contextlib.redirect_stdout(None):
                theirs = call(peer, pairs)
            samples.setdefault("peer", []).append(time.perf_counter() - start)
            samples.setdefault("peer cpu", []).append(time.process_time() - used)
        assert sum(a != b for a, b in zip(found, theirs, strict=True)) <= 0.001 * count
        median = {key: statistics.median(values) for key, values in samples.items()}
        load_average = os.getloadavg()[0]
        for workers in [int(key.split()[0]) for key in median if key.endswith("workers")]:
            write_row(
                f"rewards.accuracy.{name}.{workers}_workers", "completions/s", count / median[f"{workers} workers"],
                "open-r1 accuracy_reward", count / median["peer"], load_average=load_average,
                latency_p99_ms=1000 * median[f"{workers} p99"],
            )  # fmt: skip
        write_row(
            f"rewards.accuracy.{name}.cpu", "CPU ms a completion", 1000 * median["1 cpu"] / count,
            "open-r1 accuracy_reward", 1000 * median["peer cpu"] / count, higher_is_better=False,
        )  # fmt: skip


if __name__ == "__main__":
    main()
