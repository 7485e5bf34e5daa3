"""Seconds an optimizer step on one GPU: the seed's recipe, plain TRL at its best settings, ours; 64 × 2,048 completion tokens a step.

    python benchmarks/train_gpu.py [--only ours] [--out FOLDER] [--deadline SECONDS]
    python benchmarks/train_gpu.py --only ours,ours@2,ours@4,ours@8       # tokens/s on more GPUs

``NAME@N`` is the same on N colocated GPUs with DeepSpeed's ZeRO-2 and the same batch on each, so N times the completions a step; its line
adds the scaling efficiency, tokens a second over N times those of ``NAME``.

Random weights of DeepSeek-R1-Distill-Qwen-1.5B's shape, every completion exactly 2,048 tokens (`ignore_eos`). Each variant is a real run of
``openr1_repro.train.grpo`` under ``accelerate launch``, killed when it has logged its steps; the first generation is warm-up. One line a
variant: median seconds a step, tokens a second, the phases, peak memory, and how far the trainer's log-probabilities are from the
engine's (the check that weights arrive and numbers agree).
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
INPUTS = Path("/tmp/train_gpu_work")
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests" / "train"), str(ROOT / "benchmarks")]

SHAPE = {
    "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
COMMON = {
    "max_completion_length": 2048, "temperature": 0.7, "learning_rate": 1.0e-5, "max_steps": 40, "save_strategy": "no", "use_vllm": True,
    "vllm_gpu_memory_utilization": 0.2, "vllm_max_model_length": 2304, "log_completions": False,
    "generation_kwargs": {"ignore_eos": True}, "model_init_kwargs": {"dtype": "float32"},
}  # fmt: skip
BATCHED = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 8, "num_generations": 16, "use_liger_kernel": True,
           "gradient_checkpointing": False, "steps_per_generation": 32}  # fmt: skip
SEED = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 32,
    "num_generations": 2,
    "gradient_checkpointing": True,
}
OURS = {"old_logprobs": "sampler", "autocast_residual": True}
# Name → (grpo options, other train settings, steps before timing, steps timed). A window of 32 micro-batches is 4 optimizer steps.
VARIANTS = {
    "ours": (BATCHED, OURS, 4, 8),
    "ours-float32-residual": (BATCHED, {**OURS, "autocast_residual": False}, 4, 8),
    "ours-sdpa": (
        {**BATCHED, "model_init_kwargs": {"dtype": "float32", "attn_implementation": "sdpa"}},
        OURS,
        4,
        4,
    ),
    "ours-fp8-cache": (BATCHED, {**OURS, "vllm": {"kv_cache_dtype": "fp8"}}, 4, 4),
    "ours-one-process": (BATCHED, {**OURS, "vllm": {"distributed_executor_backend": "uni"}}, 4, 8),
    "ours-recompute": (BATCHED, {**OURS, "old_logprobs": "recompute"}, 4, 4),
    "trl": (BATCHED, {"fast_generation": False}, 4, 4),
    "seed": (SEED, {"fast_generation": False}, 1, 3),
}


def make_inputs(folder: Path, device: str = "cuda") -> None:
    """The random model with a byte-level tokenizer of its full vocabulary, and prompts of uneven length; nothing if they are there."""
    if (folder / "prompts").exists():  # written last
        return
    import tiny
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2TokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", "<|im_end|>", *alphabet])}
    letters = alphabet[65:91]
    words = (a + b + c + d for a in letters for b in letters for c in letters for d in letters)
    for word in words:  # detokenizing must cost what it costs with the real vocabulary
        if len(vocabulary) == SHAPE["vocab_size"]:
            break
        vocabulary.setdefault(word, len(vocabulary))
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = Qwen2TokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = tiny.TEMPLATE
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, eos_token_id=1, pad_token_id=0, bos_token_id=None)).to(
            torch.bfloat16
        )
    model.save_pretrained(folder / "model" / "files")
    tokenizer.save_pretrained(folder / "model" / "files")
    tiny.make_prompts(folder / "prompts", rows=4096)


def profile(process: psutil.Process, out: Path, name: str) -> None:
    """Where the Python threads of a run's engine are for eight seconds of its next generation: py-spy's stacks with counts, a file a process."""
    recorders = []
    for child in process.children(recursive=True):
        kind = next(
            (kind for kind in ("EngineCore", "Worker") if kind in " ".join([child.name(), *child.cmdline()])), None
        )
        if kind:
            command = ["py-spy", "record", "--duration", "8", "--format", "raw", "--threads", "--pid", str(child.pid)]
            recorders.append(subprocess.Popen([*command, "--output", str(out / f"{name}-{kind}-{child.pid}.txt")]))
    for recorder in recorders:
        recorder.wait()


def measure(name: str, folder: Path, out: Path, deadline: float, is_profiled: bool) -> dict:
    """Run one variant until it has logged its steps, then kill it; its numbers."""
    from openr1_repro.gpus import visible
    from openr1_repro.train import launch
    from openr1_repro.train.settings import TrainStage

    variant, _, gpus = name.partition("@")
    grpo, other, warm, timed = VARIANTS[variant]
    if gpus:
        other = {**other, "accelerate": {"num_processes": int(gpus), "distributed_type": "DEEPSPEED", "mixed_precision": "bf16",
                                         "deepspeed_config": {"zero_stage": 2}}}  # fmt: skip
    stage = {"train": {"grpo": {**COMMON, **grpo}, "rewards": {"reward_funcs": ["tiny:digits"]}, **other}}
    settings = TrainStage.model_validate(stage).train
    work = folder / f"work-{name}"
    work.mkdir(parents=True)
    (work / "settings.json").write_text(json.dumps(stage))
    (work / "accelerate.json").write_text(json.dumps(launch.accelerate_config(settings)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"{work}/accelerate.json", "-m"]
    command += ["openr1_repro.train.grpo", "--settings", f"@{work}/settings.json", "--model", f"{folder}/model/files"]
    command += ["--prompts", f"{folder}/prompts/train.parquet", "--work", str(work)]
    started = time.time()
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": ",".join(visible()[: settings.num_gpus]),
        "PYTHONPATH": os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")]),
    }
    with open(out / f"{name}.log", "wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        rows: list[dict] = []
        first = 0.0
        while child.poll() is None and len(rows) < warm + timed and time.time() < deadline:
            time.sleep(0.2)
            lines = (work / "log.jsonl").read_text().splitlines() if (work / "log.jsonl").exists() else []
            rows = [json.loads(line) for line in lines]
            first = first or (time.time() - started if rows else 0.0)
        if is_profiled and child.poll() is None:
            profile(psutil.Process(child.pid), out, name)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(3.0)  # the driver takes a moment to give the memory back
    (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = rows[warm:]
    if not rows:
        return {"name": name, "failed": (out / f"{name}.log").read_text()[-3000:]}
    phases = sorted({key for row in rows for key in row if key.startswith("time/")} - {"time/step"})
    seconds = sum(row["time/step"] for row in rows) / len(rows)
    return {
        "name": name,
        "steps": len(rows),
        "s/step": round(seconds, 2),
        "median": round(statistics.median(row["time/step"] for row in rows), 2),
        "tokens/s": round(sum(row["trained_tokens"] for row in rows) / sum(row["time/step"] for row in rows)),
        **{phase.split("/")[1]: round(sum(row.get(phase, 0.0) for row in rows) / len(rows), 2) for phase in phases},
        "peak_gib": round(max(row["memory/peak_gib"] for row in rows), 1),
        "logp_difference": rows[-1].get("sampling/sampling_logp_difference/mean")
        or next((row["sampling/sampling_logp_difference/mean"] for row in reversed(rows)
                 if "sampling/sampling_logp_difference/mean" in row), None),
        "start_s": round(first, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants, with commas between; NAME@N: on N GPUs")
    parser.add_argument("--out", type=Path, default=Path("/tmp/train_gpu"), help="logs go here")
    parser.add_argument("--deadline", type=float, default=1800, help="stop measuring after this many seconds")
    parser.add_argument("--profile", action="store_true", help="py-spy on the engine's processes after the timed steps")
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/train.json")
    arguments = parser.parse_args()
    deadline = time.time() + arguments.deadline
    arguments.out.mkdir(parents=True, exist_ok=True)
    make_inputs(INPUTS)
    results = {}
    for name in arguments.only.split(","):
        if time.time() > deadline - 60:
            print(f"{name}: left out, too little time")
            continue
        results[name] = measure(name, INPUTS, arguments.out, deadline, arguments.profile)
        variant, _, gpus = name.partition("@")
        if gpus and "tokens/s" in results.get(variant, {}) and "tokens/s" in results[name]:
            results[name]["efficiency"] = round(results[name]["tokens/s"] / int(gpus) / results[variant]["tokens/s"], 2)
        print(json.dumps(results[name]), flush=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
    if arguments.write:
        import common

        for peer in ("trl", "seed"):
            if "s/step" in results.get("ours", {}) and "s/step" in results.get(peer, {}):
                common.write_row(
                    f"train.step_vs_{peer}", "s/step", results["ours"]["s/step"], peer, results[peer]["s/step"],
                    higher_is_better=False, ours_phases=results["ours"], peer_phases=results[peer],
                )  # fmt: skip
        for name, result in results.items():
            if "efficiency" in result:
                one = results[name.partition("@")[0]]
                common.write_row(
                    f"train.scaling_{name}",
                    "tokens/s",
                    result["tokens/s"],
                    "one GPU",
                    one["tokens/s"],
                    one_phases=one,
                    phases=result,
                )


if __name__ == "__main__":
    main()
