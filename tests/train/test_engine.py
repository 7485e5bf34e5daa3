"""What the engine's worker kept by step is sorted by sequence, whatever the scheduler did. The engine itself: test_gpu.py."""

import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train_env

from openr1_repro.train.engine import sort_logprobs  # noqa: E402


def steps_of(random, prompts, completions, logprobs, at_once):
    """Rows as a worker keeps them: prompts read in pieces, sequences thrown out and begun again, a step too many at the end."""
    rows, waiting, running, done = [], list(range(len(prompts))), {}, {}
    numbers = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            running[waiting.pop(0)] = None
        for sequence in random.sample(list(running), len(running)):
            number = numbers.setdefault(sequence, len(numbers))
            had = done.get(sequence, 0)
            if running[sequence] is None:  # the prompt, and what was generated before it was thrown out, is read first
                running[sequence] = had
                if random.random() < 0.5:
                    rows.append((number, random.randint(1, prompts[sequence]), 0, 99, 1.0))
                    continue
            if random.random() < 0.1:
                running[sequence] = None
                continue
            rows.append((number, prompts[sequence] + had, 1, completions[sequence][had], logprobs[sequence][had]))
            done[sequence] = running[sequence] = had + 1
            if had + 1 == len(completions[sequence]):
                del running[sequence]
                if random.random() < 0.5:
                    rows.append((number, prompts[sequence] + had + 1, 1, 98, 2.0))
    names = [f"{sequence + 7}-{random.getrandbits(32):08x}" for sequence in numbers]
    return [names, *(np.array(column) for column in zip(*rows, strict=True))]


@pytest.mark.parametrize("seed", range(50))
def test_every_token_gets_its_own_log_probability(seed):
    chance = random.Random(seed)
    prompts = [chance.randint(1, 9) for _ in range(12)]
    completions = [[chance.randint(0, 50) for _ in range(chance.randint(1, 20))] for _ in prompts]
    logprobs = [[float(np.float32(-chance.random())) for _ in row] for row in completions]
    rows = steps_of(chance, prompts, completions, logprobs, at_once=chance.randint(1, 12))
    names = [str(sequence + 7) for sequence in range(len(prompts))]
    assert sort_logprobs(pickle.dumps(rows), names, prompts, completions) == logprobs
    completions[3][0] += 1
    with pytest.raises(RuntimeError, match="of other tokens"):
        sort_logprobs(pickle.dumps(rows), names, prompts, completions)


def test_an_engine_is_no_member_of_the_rank_s_process_group():
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        Path(__file__).with_name("rank.py"),
    ]
    subprocess.run(torchrun, check=True, timeout=120)
