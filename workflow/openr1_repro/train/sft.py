"""Supervised training on verified traces with TRL's SFTTrainer. Started by ``python -m openr1_repro.train.warm_start``."""

import argparse
import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from pyarrow import parquet
from trl import SFTConfig, SFTTrainer

from openr1_repro.process import die_with_parent
from openr1_repro.stage import add_settings_argument, parse_settings, write_json
from openr1_repro.train.grpo import load_tokenizer
from openr1_repro.train.settings import WarmStartStage
from openr1_repro.train.trainer import Resumable


class Sft(Resumable, SFTTrainer):
    """SFTTrainer with whole checkpoints and a step line."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Print TRL's metrics as one line."""
        super().log(logs, start_time)
        seconds, self.step_started = time.perf_counter() - self.step_started, time.perf_counter()
        if self.accelerator.is_main_process and "loss" in logs:
            left = (self.state.max_steps - self.state.global_step) * seconds / self.args.logging_steps
            print(
                f"step {self.state.global_step}/{self.state.max_steps} · loss {float(logs['loss']):.3f} · {left:.0f} s left",
                flush=True,
            )


def main() -> None:
    """Train, and leave the last checkpoint in ``--work``."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_settings_argument(parser)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--traces", type=Path, required=True, help="parquet: prompt, completion")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    arguments = parser.parse_args()
    die_with_parent()
    transformers.utils.logging.disable_progress_bar()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    stage = parse_settings(arguments.settings, WarmStartStage)
    cpu = stage.warm_start.sft.get("use_cpu", False) or not torch.cuda.is_available()
    os.environ.setdefault("WANDB_MODE", "offline")
    options: dict[str, Any] = {
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "bf16": not cpu,
        "report_to": "none",
        **stage.warm_start.sft,
        "output_dir": str(arguments.work),
    }
    trainer = Sft(
        model=str(arguments.model),
        args=SFTConfig(**options),
        train_dataset=Dataset(parquet.read_table(arguments.traces)),
        processing_class=load_tokenizer(arguments.model, stage.chat),
        work=arguments.work,
    )
    trainer.train(resume_from_checkpoint=str(arguments.resume) if arguments.resume else None)
    if trainer.accelerator.is_main_process:
        write_json(
            arguments.work / "facts.json", {"steps": trainer.state.global_step, "max_steps": trainer.state.max_steps}
        )
    trainer.accelerator.end_training()  # as in grpo.py


if __name__ == "__main__":
    main()
