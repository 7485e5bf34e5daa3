"""Memory does not grow with the text of a data set."""

import json
import os
import random
import subprocess
import sys

from .conftest import World, row

MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10)"
)


def peak(world: World, settings: dict) -> float:
    """MiB that the stage's process held at its peak."""
    command = [
        sys.executable, "-m", "openr1_repro.prepare", "--settings", json.dumps(settings), "--assets", str(world.assets),
        "--output", str(world.root / "prompts"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": "workflow"}
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_text_is_not_held(world: World) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(3000)]

    def rows(first: int, last: int) -> list[dict]:
        return [
            row(" ".join(rng.choices(words, k=600)), str(n), uuid=f"u{n}", solution=" ".join(rng.choices(words, k=600)))
            for n in range(first, last)
        ]

    settings = world.settings(answer={"parse": False}, max_prompt_tokens=None, validation=50)
    for file in range(4):
        world.dataset(rows(3_000 * file, 3_000 * (file + 1)), file=f"data/{file}.parquet")
    some = peak(world, settings)
    for file in range(4, 8):
        world.dataset(rows(3_000 * file, 3_000 * (file + 1)), file=f"data/{file}.parquet")
    assert peak(world, settings) - some < 100, "12,000 rows more: 100 MiB of text, 55 MiB of hashes of its shingles"
