"""Completions a second of the accuracy reward, against open-r1's function on the same texts.

    OPEN_R1_CHECKOUT=… python benchmarks/rewards.py [--count 1024] [--runs 5]

Distinct: every gold and answer once. Group: 16 completions a prompt, as GRPO samples them, whose final answers are one of
three, 6 : 3 : 1, and whose thoughts differ. Every run has new numbers in every gold and answer, so that nobody remembers
one from the run before; the first run, in which processes warm up, is not counted.
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


def renumber(chance: random.Random, *texts: str) -> list[str]:
    """The same texts with other digits, the same in all."""
    digits = str.maketrans("123456789", "".join(chance.sample("123456789", 9)))
    return [text.translate(digits) for text in texts]


def distinct(count: int, seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    found = []
    for gold, text in corpus.pairs(count):
        gold, text = renumber(chance, gold, text)
        found.append((gold, f"<think>\n{thoughts(chance)}\n</think>\n<answer>\n{text[-400:]}\n</answer>"))
    return found


def groups(count: int, seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    found = []
    for _ in range(count // 16):
        gold, answers = chance.choice(corpus.SHAPES)
        gold, *said = renumber(chance, gold, *chance.sample(answers, min(3, len(answers))))
        for answer in chance.choices(said, weights=[6, 3, 1][: len(said)], k=16):
            text = f"<think>\n{thoughts(chance)}\n</think>\n<answer>\nThe answer is $\\boxed{{{answer}}}$\n</answer>"
            found.append((f"${gold}$", text))
    return found


def call(function, pairs):
    completions = [[{"role": "assistant", "content": text}] for _, text in pairs]
    return function(completions=completions, solution=[gold for gold, _ in pairs])


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
    engines = {
        workers: load(RewardSettings(reward_funcs=["accuracy"], verify_workers=workers, verify_batch_timeout=3600.0))
        for workers in sorted({1, cores, *(2**n for n in range(10) if 2**n < cores)})
    }
    for name, make in (("distinct", distinct), ("group_of_16", groups)):
        samples: dict[str, list[float]] = {}
        for run in range(arguments.runs + 1):  # in turn, so that a drift of the machine hits all
            pairs = make(count, run)
            for workers, rewards in engines.items():
                start, used = time.perf_counter(), cpu_seconds(rewards)
                found = call(rewards.reward_funcs[0], pairs)
                samples.setdefault(f"{workers} workers", []).append(time.perf_counter() - start)
                samples.setdefault(f"{workers} cpu", []).append(cpu_seconds(rewards) - used)
                samples.setdefault(f"{workers} p99", []).append(rewards.statistics()["accuracy"]["latency_p99"])
            start, used = time.perf_counter(), time.process_time()
            with contextlib.redirect_stdout(None):
                theirs = call(peer, pairs)
            samples.setdefault("peer", []).append(time.perf_counter() - start)
            samples.setdefault("peer cpu", []).append(time.process_time() - used)
            different = sum(a != b for a, b in zip(found, theirs, strict=True))
            assert different <= 0.001 * count, f"{different} verdicts differ"
        median = {key: statistics.median(values[1:]) for key, values in samples.items()}
        for workers in engines:
            write_row(
                f"rewards.accuracy.{name}.{workers}_workers", "completions/s", count / median[f"{workers} workers"],
                "open-r1 accuracy_reward", count / median["peer"], load_average=os.getloadavg()[0],
                latency_p99_ms=1000 * median[f"{workers} p99"], cpu_ms=1000 * median[f"{workers} cpu"] / count,
                peer_cpu_ms=1000 * median["peer cpu"] / count,
            )  # fmt: skip
        write_row(
            f"rewards.accuracy.{name}.cpu", "CPU ms a completion", 1000 * median["1 cpu"] / count,
            "open-r1 accuracy_reward", 1000 * median["peer cpu"] / count, higher_is_better=False,
        )  # fmt: skip
    for rewards in engines.values():
        rewards.close()


if __name__ == "__main__":
    main()
