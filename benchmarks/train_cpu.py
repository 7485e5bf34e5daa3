"""What the train stage adds to a step: CPU seconds of a step with TRL's GRPOTrainer as it is, and with ours (log line, timings, guards).

    python benchmarks/train_cpu.py [--steps 12]

The embedded model, 128 completions a step, alternating runs in one process; medians of CPU time, which a busy machine does not change.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests" / "train"), str(ROOT / "benchmarks")]

import common  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import tiny  # noqa: E402
from datasets import Dataset  # noqa: E402
from openr1_repro.stage import Chat  # noqa: E402
from openr1_repro.train.grpo import load_tokenizer  # noqa: E402
from openr1_repro.train.trainer import Trainer  # noqa: E402
from transformers import PrinterCallback, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

MODEL = ROOT / "workflow" / "resources" / "hub" / "models" / "embedded--tiny-math-1m"


class Clock(TrainerCallback):
    """CPU seconds at the end of every step."""

    def __init__(self):
        self.times = []

    def on_step_begin(self, *args, **kwargs):
        self.times.append(time.process_time())

    def steps(self):
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)][1:]  # the first step warms up


def measure(ours: bool, folder: Path, steps: int) -> list[float]:
    """Train some steps; CPU seconds of each."""
    clock = Clock()
    arguments = {
        "model": str(MODEL),
        "reward_funcs": [tiny.digits],
        "args": GRPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, per_device_train_batch_size=128, num_generations=8, max_completion_length=32,
            max_steps=steps, save_strategy="no", gradient_checkpointing=False, logging_steps=1, disable_tqdm=True, report_to="none",
            log_completions=ours, num_completions_to_print=0, model_init_kwargs={"dtype": "float32"},
        ),
        "train_dataset": Dataset(pq.read_table(folder / "prompts" / "train.parquet")),
        "processing_class": load_tokenizer(MODEL, Chat()),
        "callbacks": [clock],
    }  # fmt: skip
    trainer = Trainer(**arguments, work=folder) if ours else GRPOTrainer(**arguments)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.steps()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.make_prompts(folder / "prompts", rows=256)
        for ours in (False, True, False, True):
            seconds[ours] += measure(ours, folder, arguments.steps)
    common.write_row(
        "train.cpu_step",
        "CPU s/step",
        statistics.median(seconds[True]),
        "TRL 1.16 GRPOTrainer",
        statistics.median(seconds[False]),
        higher_is_better=False,
    )


if __name__ == "__main__":
    main()
