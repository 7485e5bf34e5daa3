"""Generation by transformers: the engine of machines without a GPU, batched for small models.

A batch is all problems of a benchmark (at most ``batch_size``, of like length) for one sample index, seeded as a whole. So its texts
depend neither on what else is asked nor on where an earlier run stopped, and one more sample or benchmark is one more batch.
"""

import hashlib
import importlib.metadata
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from openr1_repro.evaluate.responses import Request, Response, seed_of
from openr1_repro.evaluate.settings import EvaluateSettings
from openr1_repro.stage import UserError

Answers = list[tuple[Request, Response]]


def identity(settings: EvaluateSettings) -> str:
    """What of the engine decides a text, for the response cache."""
    version = importlib.metadata.version("transformers")
    return f"transformers {version} {_device()} {_dtype(settings.dtype)} batches of {settings.batch_size}"


def plan(requests: Iterable[Request], settings: EvaluateSettings) -> list[Request]:
    """The requests in the order of their batches, each with its batch's seed and a digest of its prompts."""

    def group(request: Request) -> tuple[str, int]:
        return request.benchmark, request.sample

    planned: list[Request] = []
    for (benchmark, sample), members in itertools.groupby(sorted(requests, key=group), key=group):
        ordered = sorted(members, key=lambda r: (len(r.prompt), r.item))
        for start in range(0, len(ordered), settings.batch_size):
            batch = ordered[start : start + settings.batch_size]
            seed = seed_of(settings.seed, benchmark, sample, start // settings.batch_size)
            together = hashlib.sha256(repr([request.prompt for request in batch]).encode()).hexdigest()
            planned += [replace(request, seed=seed, batch=together) for request in batch]
    return planned


def generate(
    folder: Path,
    tokenizer: Any,
    planned: list[Request],
    settings: EvaluateSettings,
    stored: Callable[[Request], Response | None],
) -> Iterator[Answers]:
    """Answer the batches that have a request not yet ``stored``, whole.

    Raises:
        UserError: if the model cannot be loaded, or a prompt leaves no room for an answer.
    """
    batches = [list(batch) for _, batch in itertools.groupby(planned, key=lambda request: request.seed)]
    batches = [batch for batch in batches if not all(map(stored, batch))]
    if not batches:
        return
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=_dtype(settings.dtype), local_files_only=True
        )
    except Exception as error:  # whatever a damaged folder makes transformers raise
        raise UserError(f"{folder}: transformers cannot load this model: {error}") from error
    model = model.to(_device()).eval()
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    for batch in batches:
        yield _answer(model, tokenizer, batch, ends)


@torch.inference_mode()
def _answer(model: Any, tokenizer: Any, batch: list[Request], ends: list[int]) -> Answers:
    sampling = batch[0].sampling
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    tokens = [tokenizer(request.prompt, add_special_tokens=False)["input_ids"] for request in batch]
    width = max(map(len, tokens))
    room = model.config.max_position_embeddings - width
    if room < 1:
        positions = model.config.max_position_embeddings
        raise UserError(
            f"{batch[0].benchmark}: a prompt of {width} tokens leaves no room in the model's {positions} positions"
        )
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in tokens], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=model.device)
    # Explicit: what a checkpoint's generation_config.json says of sampling is not the protocol's.
    config = transformers.GenerationConfig(
        max_new_tokens=min(sampling.max_new_tokens, room),
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or None,
        top_p=sampling.top_p if sampling.temperature else None,
        top_k=sampling.top_k if sampling.temperature else None,
        eos_token_id=ends,
        pad_token_id=pad,
        stop_strings=sampling.stop or None,
    )
    torch.manual_seed(batch[0].seed)
    output = model.generate(
        ids, attention_mask=mask, generation_config=config, tokenizer=tokenizer if sampling.stop else None
    )
    answers = []
    for request, row in zip(batch, output[:, width:].tolist(), strict=True):
        length = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        text = tokenizer.decode(row[:length], skip_special_tokens=True)
        stopped = row[length - 1] in ends
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text[: text.index(stop)], True
        answers.append((request, Response(text, length, "stop" if stopped else "length")))
    return answers


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return getattr(torch, name)
