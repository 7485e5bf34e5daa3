"""GRPO of one model on prepared prompts: TRL's GRPOTrainer, told what the settings say. Started by ``python -m openr1_repro.train``.

    accelerate launch --config_file accelerate.yaml -m openr1_repro.train.grpo --settings @settings.json --model … --prompts … --work …

For each batch of prompts the policy writes `num_generations` completions a prompt, the rewards score them, a group's rewards become
advantages, and the policy is moved towards the better completions (GRPO, arXiv:2402.03300). All of that is TRL's.
"""

import argparse
import contextlib
import faulthandler
import functools
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
import transformers
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available
from trl import GRPOConfig
from trl.trainer import grpo_trainer

from openr1_repro import rewards
from openr1_repro.process import die_with_parent
from openr1_repro.stage import Chat, UserError, add_settings_argument, parse_settings, write_json
from openr1_repro.train.engine import OwnProcessEngine
from openr1_repro.train.settings import TrainSettings, TrainStage
from openr1_repro.train.trainer import Trainer


def main() -> None:
    """Train, from the checkpoint given by ``--resume`` if any; ``facts.json`` in ``--work`` says how far it came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_settings_argument(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model's files")
    parser.add_argument("--prompts", type=Path, required=True, help="train.parquet of the prepare stage")
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints, log and completions go")
    parser.add_argument("--resume", type=Path, help="a checkpoint in --work to go on from")
    arguments = parser.parse_args()
    die_with_parent()
    transformers.utils.logging.disable_progress_bar()  # a log file has no use for it
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # the watchdog asks for it before it kills
    stage = parse_settings(arguments.settings, TrainStage)
    settings = stage.train

    tokenizer = load_tokenizer(arguments.model, stage.chat)
    dataset = Dataset(pyarrow.parquet.read_table(arguments.prompts))
    attention = choose_attention(settings)
    if settings.own_engine:  # TRL builds its engine itself and takes none from outside
        grpo_trainer.VLLMGeneration = functools.partial(OwnProcessEngine, engine_options=settings.vllm)
    with contextlib.closing(rewards.load(settings.rewards)) as engine:
        trainer = Trainer(
            model=str(arguments.model),
            reward_funcs=list(engine.reward_funcs),
            args=grpo_config(settings, arguments.work, attention, engine.reward_weights),
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora_config(settings),
            work=arguments.work,
            resumable_checkpoints=settings.resumable_checkpoints,
            old_logprobs_of_sampler=settings.old_logprobs == "sampler" and settings.option("use_vllm"),
            autocast_residual=settings.autocast_residual,
            max_steps_without_spread=settings.stop_after_steps_without_spread,
            reward_statistics=engine.statistics,
        )
        gc.freeze()  # what is loaded by now stays: else every collection between generations walks through all of it
        trainer.train(resume_from_checkpoint=str(arguments.resume) if arguments.resume else None)

    if trainer.accelerator.is_main_process:
        write_json(arguments.work / "facts.json", facts(trainer, attention))
    trainer.accelerator.end_training()  # a Gloo thread that the interpreter's end overtakes aborts a rank that had finished


def load_tokenizer(model: Path, chat: Chat) -> PreTrainedTokenizerBase:
    """The model's tokenizer with the variant's chat template, padding on the left as generation needs.

    Raises:
        UserError: if neither the variant nor the model has a chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    if chat.template is not None:
        tokenizer.chat_template = chat.template
    if not tokenizer.chat_template:
        raise UserError(f"{model}: the model has no chat template; set `chat` → `template` in the variant")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def choose_attention(settings: TrainSettings) -> str:
    """The attention implementation: the variant's, else the best that is installed and runs on this chip.

    FlashAttention 4 was written for Blackwell and also serves Hopper; 3 is Hopper's; 2 needs Ampere; PyTorch's own (sdpa) runs anywhere.
    """
    asked = (settings.grpo.get("model_init_kwargs") or {}).get("attn_implementation")
    if asked:
        return asked
    if not settings.uses_gpus or not torch.cuda.is_available():
        return "sdpa"
    generation = torch.cuda.get_device_capability()[0]
    if generation == 9 and is_flash_attn_3_available():
        return "flash_attention_3"
    if generation >= 9 and is_flash_attn_4_available():
        return "flash_attention_4"
    if generation >= 8 and is_flash_attn_2_available():
        return "flash_attention_2"
    return "sdpa"


def grpo_config(settings: TrainSettings, work: Path, attention: str, reward_weights: list[float] | None) -> GRPOConfig:
    """TRL's config: the variant's options as they are, the stage's own where TRL needs them."""
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_DIR", str(work))
    options: dict[str, Any] = {
        # TRL's defaults log every tenth step, print no completions file, and want bf16, which few CPUs compute fast.
        "logging_steps": 1,
        "log_completions": True,
        "num_completions_to_print": 0,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,  # all are used; looking for them costs a pass over the graph
        "logging_nan_inf_filter": False,
        "bf16": settings.uses_gpus and not settings.grpo.get("fp16", False),
        "vllm_mode": settings.layout,
        **settings.grpo,
        "output_dir": str(work),
        "gradient_accumulation_steps": settings.accumulation,
        "report_to": list(settings.report_to) or "none",
        "reward_weights": reward_weights,
        "model_init_kwargs": {**(settings.grpo.get("model_init_kwargs") or {}), "attn_implementation": attention},
    }
    if settings.layout == "server":
        options["vllm_server_base_url"] = os.environ["OPENR1_REPRO_VLLM_SERVER"]
    return GRPOConfig(**options)


def lora_config(settings: TrainSettings) -> Any:
    """peft's config, None when all weights are trained."""
    if settings.lora is None:
        return None
    from peft import LoraConfig  # 2 s to import, and most runs train all weights

    return LoraConfig(**{"task_type": "CAUSAL_LM", **settings.lora})


def facts(trainer: Trainer, attention: str) -> dict[str, Any]:
    """What ran, for train.json: steps, device, attention, versions."""
    import importlib.metadata

    versions = {}
    for name in (
        "torch",
        "transformers",
        "trl",
        "accelerate",
        "vllm",
        "deepspeed",
        "flash-attn",
        "liger-kernel",
        "peft",
    ):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "steps": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "processes": trainer.accelerator.num_processes,
        "device": torch.cuda.get_device_name() if trainer.accelerator.device.type == "cuda" else "cpu",
        "attn_implementation": attention,
        "versions": {"python": sys.version.split()[0], **versions},
    }


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        # The supervisor shows this in place of a traceback; every rank may say it, the last one stays.
        failure = Path(sys.argv[sys.argv.index("--work") + 1]) / "failure.json"
        failure.write_text(json.dumps({"message": str(error)}))
        raise SystemExit(1) from None
