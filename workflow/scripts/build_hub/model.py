"""The embedded model: tokenizer, pre-training on random traces, and the files of its repository."""

import json
import random
import re
import time
from pathlib import Path

import torch
from data import draw_benchmark
from problems import draw_problem, draw_trace
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
VOCABULARY = 512


def build_tokenizer(texts: list[str]) -> Qwen2Tokenizer:
    """A byte-level BPE in Qwen2's own form, because that class is what AutoTokenizer loads for this architecture."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,  # <think> and </think> come on top
        special_tokens=[BOS, EOS, PAD, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=None,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=[USER, ASSISTANT],
        model_max_length=512,
    )
    tokenizer.add_tokens(["<think>", "</think>"])  # as DeepSeek has them: one token each, kept when decoding
    tokenizer.chat_template = Path(__file__).with_name("chat_template.jinja").read_text()
    return tokenizer


def pretrain(tokenizer: Qwen2Tokenizer, held_out: set[tuple[str, int, int]], seed: int, steps: int) -> Qwen2ForCausalLM:
    """A model that writes traces as `draw_trace` draws them, for any problem but those with ``held_out`` operands."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    peak, batch_size = 3e-3, 128
    warmup = min(100, steps // 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=warmup / steps, anneal_strategy="cos", cycle_momentum=False
    )
    start = time.monotonic()
    for step in range(steps):
        problems = []
        while len(problems) < batch_size:
            problem = draw_problem(rng)
            if problem.operands not in held_out:
                problems.append(problem)
        prompts = tokenizer([f"{BOS}{USER}{problem.text}{ASSISTANT}" for problem in problems]).input_ids
        traces = tokenizer([draw_trace(rng, problem)[0] + EOS for problem in problems]).input_ids
        length = max(len(prompt) + len(trace) for prompt, trace in zip(prompts, traces, strict=True))
        tokens = torch.full((batch_size, length), tokenizer.pad_token_id)
        labels = torch.full((batch_size, length), -100)
        for row, (prompt, trace) in enumerate(zip(prompts, traces, strict=True)):
            tokens[row, : len(prompt) + len(trace)] = torch.tensor(prompt + trace)
            labels[row, len(prompt) : len(prompt) + len(trace)] = torch.tensor(trace)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - start:.0f} s", flush=True)
    return model


def write_model(hub: Path, seed: int, steps: int, threads: int) -> None:
    """Write the model's repository under ``hub/models``; its model card is kept by hand."""
    torch.set_num_threads(threads)
    rng = random.Random(f"tokenizer {seed}")
    texts = []
    for _ in range(5000):
        problem = draw_problem(rng)
        texts += [problem.text, re.sub("</?think>", "", draw_trace(rng, problem)[0])]
    tokenizer = build_tokenizer(texts)
    held_out = {problem.operands for problem in draw_benchmark(seed)}
    model = pretrain(tokenizer, held_out, seed, steps)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = hub / "models/embedded--tiny-math-1m"
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
