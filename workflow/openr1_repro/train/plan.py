"""What a training would take, before any GPU is touched: who sits where, steps, memory, disk, hours, money; refused where it cannot fit.

    python -m openr1_repro.train.plan --settings @variants.json [--gpus 8] [--gpu-memory 80] [--price 2.5] [--output plan.json]

``variants.json``: a list of ``{"variant": name, "train": the variant's train section, "model": config.json of its model or the path of
one, "prompts": train.parquet}``. Completions are taken to reach `max_completion_length`: upper bounds.

The model behind the figures is arithmetic with few constants, and each constant says where it comes from: the H200 measurements in
docs/train.md (1.78 B parameters, 64 × 2,048 tokens a step). Other chips are scaled by their peak rate and bandwidth.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from openr1_repro import gpus
from openr1_repro.stage import UserError, read_json, run, write_json
from openr1_repro.train.settings import TrainSettings

GIB = 2**30
# GPU memory in GiB → (dense bf16 TFLOP/s, TB/s) of the chips that have it; between them, the nearest.
CHIPS = {40: (312, 1.5), 80: (990, 3.3), 140: (990, 4.3), 180: (2250, 7.7)}
# How fast the host is decides much: the constants lie in the middle of four machines (docs/train.md).
TRAIN_SHARE = 0.71  # of the peak, at endless micro-batches; 8 × 2,048 tokens reach 0.52: 64 × 2,048 in 2.7 s
HALF_TOKENS = 6500  # micro-batch at which training runs at half of that: the seed's 2 × 2,048 takes 4.7 to 8.7 s with checkpointing
FORWARD_SHARE = 0.85  # of training's rate, in the pass for the old log-probabilities: 1.0 to 1.7 s
STEP_SECONDS = 0.0007  # decoding one token of every sequence, before weights and sequences
SEQUENCE_SECONDS = 0.0375e-3  # a sequence's part of that with TRL's engine: 64 sequences 16,400 tokens/s, 256 23,000
# with `fast_generation`: from vLLM alone, 55,000 tokens/s at 256; held in training (docs/train.md)
FAST_SEQUENCE_SECONDS = 0.02e-3
REST_SECONDS = 0.4  # rewards, padding, logging
SYNC_SECONDS_PER_GIB = 0.1  # giving the engine new weights
CONTEXT_GIB = 2.0  # CUDA, NCCL, kernels' workspaces
ENGINE_GIB = 2.0  # CUDA graphs and activations of an engine whose KV cache is given: six runs of smollm2 on one H200 took 111 GiB


@dataclass(frozen=True)
class Shape:
    """What a model's config.json says about its size."""

    parameters: int
    matrix_parameters: int
    """Those that every token is multiplied with: all but the input embedding."""
    layers: int
    hidden: int
    intermediate: int
    kv_bytes_per_token: int
    """16-bit keys and values of one token over all layers."""


@dataclass
class Plan:
    """One variant's row of the table."""

    variant: str
    seats: dict[str, str] = field(default_factory=dict)
    completions_per_step: int = 0
    accumulation: int = 0
    steps: int = 0
    memory_gib: dict[str, float] = field(default_factory=dict)
    peak_gib: float = 0.0
    disk_gib: float = 0.0
    step_seconds: dict[str, float] = field(default_factory=dict)
    seconds_per_step: float = 0.0
    hours: float = 0.0
    money: float = 0.0
    refusals: list[str] = field(default_factory=list)


def shape_of(config: dict[str, Any]) -> Shape:
    """The shape of a decoder with gated MLPs and grouped-query attention (Llama, Qwen2, Qwen3, Mistral …).

    Raises:
        UserError: if the config lacks what must be known.
    """
    try:
        hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
        intermediate, vocabulary = config["intermediate_size"], config["vocab_size"]
    except KeyError as error:
        raise UserError(f"config.json of the model lacks {error}: this kind of model cannot be planned") from None
    head = config.get("head_dim") or hidden // heads
    kv = (config.get("num_key_value_heads") or heads) * head
    layer = hidden * heads * head * 2 + 2 * hidden * kv + 3 * hidden * intermediate + 2 * hidden
    embedding = vocabulary * hidden
    matrices = layers * layer + embedding
    total = matrices + (0 if config.get("tie_word_embeddings") else embedding)
    return Shape(total, matrices, layers, hidden, intermediate, layers * kv * 2 * 2)


def seats(settings: TrainSettings) -> dict[str, str]:
    """GPU → what sits there, on one machine."""
    if not settings.uses_gpus:
        return {"cpu": f"train ({settings.num_processes} processes)"}
    training = settings.num_gpus - settings.num_serving_gpus
    colocated = settings.option("use_vllm") and settings.layout == "colocate"
    rows = {str(i): "train + generate" if colocated else "train" for i in range(training)}
    return rows | {str(training + i): "generate" for i in range(settings.num_serving_gpus)}


def weight_bytes(settings: TrainSettings) -> int:
    """Bytes of one weight in training."""
    dtype = (settings.option("model_init_kwargs") or {}).get("dtype", "float32")
    return 2 if dtype in ("bfloat16", "float16") else 4


def state_bytes(settings: TrainSettings, shape: Shape) -> dict[str, float]:
    """Bytes on one training GPU for weights, gradients and Adam, by ZeRO stage (Rajbhandari et al., 2020) or LoRA."""
    parameters, processes = shape.parameters, settings.num_processes
    stage = (settings.accelerate.get("deepspeed_config") or {}).get("zero_stage", 0)
    width = weight_bytes(settings)
    reference = 0.0 if settings.option("beta") == 0.0 or settings.lora is not None else parameters * width
    if settings.lora is not None:
        rank = settings.lora.get("r", 8)
        trainable = shape.layers * rank * (shape.hidden * 9 + shape.intermediate * 3)
        return {"weights": parameters * width, "gradients": trainable * 4, "optimizer": trainable * 8, "reference": 0.0}
    if stage:  # DeepSpeed keeps 16-bit weights, and the 32-bit ones with Adam's moments
        return {
            "weights": parameters * 2 / (processes if stage == 3 else 1),
            "gradients": parameters * 2 / (processes if stage >= 2 else 1) + 2 * 5e8,  # and two communication buckets
            "optimizer": parameters * 12 / processes,
            "reference": reference / (processes if stage == 3 else 1),
        }
    return {
        "weights": parameters * width
        + (parameters * 2 if width == 4 else 0),  # autocast keeps 16-bit copies for the backward pass
        "gradients": parameters * width * (2 if processes > 1 else 1),  # DDP's buckets
        "optimizer": parameters * width * 2,
        "reference": reference,
    }


def activation_bytes(settings: TrainSettings, shape: Shape, prompt_tokens: int) -> float:
    """Bytes that one micro-batch leaves for its backward pass: counted tensor by tensor for bf16 autocast over a 32-bit residual stream.

    In a 16-bit one the stream itself is half as large, and where norms keep its type (Liger's, or weights of 16 bits) the five products
    that follow them share their input in place of a copy each.
    """
    tokens = settings.option("per_device_train_batch_size") * (prompt_tokens + settings.option("max_completion_length"))
    liger = settings.option("use_liger_kernel")
    layer = (24 if liger else 34) * shape.hidden + (6 if liger else 8) * shape.intermediate
    stream = 4
    if weight_bytes(settings) == 2 or settings.autocast_residual:
        layer -= (10 if liger or weight_bytes(settings) == 2 else 4) * shape.hidden
        stream = 2
    if settings.option("gradient_checkpointing"):
        return tokens * (shape.layers * stream * shape.hidden + layer)
    return tokens * shape.layers * layer


def decode_seconds(
    settings: TrainSettings, shape: Shape, sequences: float, bandwidth: float, tensor_parallel: int
) -> float:
    """Seconds for one token of each of ``sequences`` on one engine."""
    weights = shape.parameters * 2 / tensor_parallel / (bandwidth * 1e12)
    return STEP_SECONDS + weights + sequences * (FAST_SEQUENCE_SECONDS if settings.own_engine else SEQUENCE_SECONDS)


def plan(
    variant: str,
    settings: TrainSettings,
    shape: Shape,
    prompts: int,
    gpu_gib: float = 80.0,
    num_gpus: int = 8,
    price: float = 2.5,
    free_disk_gib: float | None = None,
    prompt_tokens: int = 512,
) -> Plan:
    """Predict one variant.

    Args:
        variant: its name.
        settings: its train section.
        shape: of its model.
        prompts: rows to train on.
        gpu_gib: memory of one GPU.
        num_gpus: GPUs of this machine.
        price: of one GPU for an hour.
        free_disk_gib: room for checkpoints; None: not checked.
        prompt_tokens: longest prompt.
    """
    row = Plan(variant, seats(settings), settings.completions, settings.accumulation)
    epochs = settings.option("num_train_epochs")
    per_step = settings.completions / settings.option("num_generations") * settings.option("num_iterations") ** -1
    row.steps = settings.option("max_steps") if settings.option("max_steps") > 0 else int(prompts * epochs / per_step)
    parameters = state_bytes(settings, shape)
    saved = shape.parameters * weight_bytes(settings)
    kept = settings.option("save_total_limit") or (
        max(1, row.steps // int(settings.option("save_steps")))
        if settings.option("save_strategy") == "steps"
        else max(1, int(epochs))
    )
    optimizer = shape.parameters * (12 if settings.accelerate.get("deepspeed_config") else 8)
    resumable = min(kept, settings.resumable_checkpoints)
    row.disk_gib = round(
        ((kept + 1) * saved + (resumable + 1) * optimizer) / GIB, 1
    )  # one more while the newest is written
    if free_disk_gib is not None and row.disk_gib > free_disk_gib:
        row.refusals.append(
            f"checkpoints need {row.disk_gib:.0f} GiB of disk and {free_disk_gib:.0f} are free: lower `grpo` → `save_total_limit`"
            " or `resumable_checkpoints`"
        )
    if not settings.uses_gpus:
        return row

    if settings.num_gpus > num_gpus:
        row.refusals.append(
            f"{settings.num_gpus} GPUs are needed and there are {num_gpus}: lower `accelerate` → `num_processes`"
            " (with `completions_per_step` the recipe stays the same)"
        )
    flops, bandwidth = CHIPS[min(CHIPS, key=lambda gib: abs(gib - gpu_gib))]
    colocated = settings.option("use_vllm") and settings.layout == "colocate"
    sleeping = colocated and settings.option("vllm_enable_sleep_mode")
    tensor_parallel = (
        settings.vllm.get("tensor_parallel_size", 1)
        if settings.layout == "server"
        else settings.option("vllm_tensor_parallel_size")
    )
    engine_weights = shape.parameters * 2 / tensor_parallel / GIB
    if cache := (settings.vllm.get("kv_cache_memory_bytes") or 0) / GIB:
        engine = cache + engine_weights + ENGINE_GIB
    else:
        key = "vllm_gpu_memory_utilization"
        engine = gpu_gib * (settings.option(key) if colocated else settings.vllm.get("gpu_memory_utilization", 0.9))
    memory = {name: size / GIB for name, size in parameters.items()}
    memory["activations"] = activation_bytes(settings, shape, prompt_tokens) / GIB
    memory["logits"] = 1.0  # TRL computes them in chunks
    memory["engine"] = engine if colocated else 0.0
    memory["context"] = CONTEXT_GIB
    training = sum(memory.values()) - (memory["engine"] if sleeping else 0.0)
    generating = sum(memory[name] for name in ("weights", "optimizer", "reference", "engine", "context"))
    row.memory_gib = {name: round(size, 1) for name, size in memory.items()}
    row.peak_gib = round(max(training, generating), 1)
    if row.peak_gib > gpu_gib:
        row.refusals.append(
            f"{row.peak_gib:.0f} GiB a GPU are needed and it has {gpu_gib:.0f}: {remedy(settings, row.memory_gib)}"
        )

    engines = max(
        1, (settings.num_serving_gpus if settings.layout == "server" else settings.num_processes) // tensor_parallel
    )
    room = (cache or engine - engine_weights) * tensor_parallel * GIB
    length = settings.option("max_completion_length")
    fits = int(room / (shape.kv_bytes_per_token * (prompt_tokens + length))) if settings.option("use_vllm") else 10**9
    if fits < 1:
        row.refusals.append(
            f"the engine has no room for one sequence of {prompt_tokens + length} tokens: raise {engine_memory(settings)}"
            " or the engine's tensor parallel size"
        )
        fits = 1
    waves, sequences = [], settings.generation_batch / engines
    while sequences > 0:  # what does not fit waits
        waves.append(min(sequences, fits))
        sequences -= fits
    generations_per_step = settings.completions / settings.generation_batch / settings.option("num_iterations")
    decoding = sum(length * decode_seconds(settings, shape, wave, bandwidth, tensor_parallel) for wave in waves)
    tokens = settings.completions * (prompt_tokens + length) / settings.num_processes
    micro = settings.option("per_device_train_batch_size") * (prompt_tokens + length)
    rate = flops * TRAIN_SHARE * 1e12 * micro / (micro + HALF_TOKENS)
    work = tokens * (6 * shape.matrix_parameters + 6 * shape.layers * shape.hidden * length)
    on_policy = (
        settings.accumulation * settings.num_processes * settings.option("per_device_train_batch_size")
        >= settings.generation_batch
    )
    corrected = settings.option("use_vllm") and settings.option("vllm_importance_sampling_correction")
    second_pass = settings.old_logprobs == "recompute" and (corrected or not on_policy)
    row.step_seconds = {
        "generate": decoding * generations_per_step
        + SYNC_SECONDS_PER_GIB * shape.parameters * 2 / GIB * generations_per_step,
        "old_logprobs": work / 3 / (rate * FORWARD_SHARE) * second_pass,
        "train": work * (4 / 3 if settings.option("gradient_checkpointing") else 1) / rate,
        "rest": REST_SECONDS,
    }
    row.step_seconds = {name: round(seconds, 2) for name, seconds in row.step_seconds.items()}
    row.seconds_per_step = round(sum(row.step_seconds.values()), 2)
    row.hours = round(row.steps * row.seconds_per_step / 3600, 2)
    row.money = round(row.hours * settings.num_gpus * settings.num_machines * price, 2)
    return row


def engine_memory(settings: TrainSettings) -> str:
    """The setting that the engine has its memory from."""
    if settings.vllm.get("kv_cache_memory_bytes"):
        return "`vllm` → `kv_cache_memory_bytes`"
    return (
        "`vllm` → `gpu_memory_utilization`" if settings.layout == "server" else "`grpo` → `vllm_gpu_memory_utilization`"
    )


def remedy(settings: TrainSettings, memory: dict[str, float]) -> str:
    """The setting that takes most off the largest part of ``memory``."""
    largest = max((name for name in memory if name != "context"), key=lambda name: memory[name])
    if largest == "activations":
        if not settings.option("gradient_checkpointing"):
            return f"activations are {memory[largest]:.0f}: set `grpo` → `gradient_checkpointing: true`"
        return f"activations are {memory[largest]:.0f}: halve `grpo` → `per_device_train_batch_size` (accumulation makes up for it)"
    if largest == "engine":
        return f"the engine takes {memory[largest]:.0f}: lower {engine_memory(settings)} or set `vllm_enable_sleep_mode: true`"
    stage = (settings.accelerate.get("deepspeed_config") or {}).get("zero_stage", 0)
    if settings.num_processes > 1 and stage < 3:
        return f"{largest} take {memory[largest]:.0f}: set `accelerate` → `deepspeed_config` → `zero_stage: {2 if stage < 2 else 3}`"
    return f"{largest} take {memory[largest]:.0f}: set `lora`, or train on more GPUs with `zero_stage`"


def table(rows: list[Plan], price: float) -> str:
    """The plans for people to read, a block a variant."""
    blocks = []
    for row in rows:
        grouped: dict[str, list[str]] = {}
        for gpu, job in row.seats.items():
            grouped.setdefault(job, []).append(gpu)
        where = "; ".join(job if gpus == ["cpu"] else f"{job}: GPU {', '.join(gpus)}" for job, gpus in grouped.items())
        lines = [
            row.variant,
            f"  seats     {where}",
            f"  step      {row.completions_per_step} completions, accumulation {row.accumulation}; {row.steps} steps",
            f"  disk      {row.disk_gib:.1f} GiB of checkpoints",
        ]
        if row.memory_gib:
            parts = ", ".join(f"{name} {size:g}" for name, size in row.memory_gib.items() if size)
            phases = ", ".join(f"{name} {seconds:g}" for name, seconds in row.step_seconds.items())
            lines.insert(3, f"  memory    {row.peak_gib:.0f} GiB a GPU at most: {parts}")
            lines.append(f"  time      {row.seconds_per_step:.1f} s a step ({phases}); {row.hours:.1f} h")
            lines.append(f"  money     {row.money:.0f} at {price:g} a GPU-hour")
        lines += [f"  REFUSED   {reason}" for reason in row.refusals]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def count(prompts: str) -> tuple[int, int]:
    """Rows of a prepared train.parquet and its longest prompt's tokens, 512 where the prepare stage did not count them."""
    tokens = pq.read_table(prompts, columns=["prompt_tokens"]).column(0)
    return len(tokens), pc.max(tokens).as_py() or 512


def main() -> None:
    """Print the table; exit status 1 where a variant is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", required=True, help="the list of variants: JSON, or @file")
    parser.add_argument("--gpus", type=int, help="GPUs of the machine (default: those visible, else 8)")
    parser.add_argument("--gpu-memory", type=float, default=80.0, help="GiB of one GPU")
    parser.add_argument("--price", type=float, default=2.5, help="of one GPU for an hour")
    parser.add_argument("--disk", type=Path, help="a folder where checkpoints would go, to check its free space")
    parser.add_argument("--output", type=Path, help="also write the rows as JSON")
    arguments = parser.parse_args()
    text = arguments.settings
    variants = read_json(text[1:]) if text.startswith("@") else json.loads(text)
    rows = []
    for entry in variants:
        model, (prompts, longest) = entry["model"], count(entry["prompts"])
        rows.append(
            plan(
                entry["variant"],
                TrainSettings.model_validate(entry["train"]),
                shape_of(model if isinstance(model, dict) else read_json(model)),
                prompts,
                arguments.gpu_memory,
                arguments.gpus or len(gpus.visible()) or 8,
                arguments.price,
                shutil.disk_usage(arguments.disk).free / GIB if arguments.disk else None,
                longest,
            )
        )
    print(table(rows, arguments.price))
    if arguments.output:
        write_json(arguments.output, [asdict(row) for row in rows])
    if any(row.refusals for row in rows):
        raise UserError(
            "not started: "
            + ", ".join(row.variant for row in rows if row.refusals)
            + " cannot run as set; see REFUSED above"
        )


if __name__ == "__main__":
    run(main)
