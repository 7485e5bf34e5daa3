"""What the train tests train: a Qwen2 of 60,000 random parameters, prompts, and a reward by import path."""

import atexit
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def make_model(folder: Path, hidden_size: int = 32) -> Path:
    """An asset (manifest.json, files/): a random Qwen2 with a byte-level BPE in Qwen2's own form."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2TokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    text = [
        f"<think>\n{a} + {b} = {a + b}\n</think>\n<answer>\n{a + b}\n</answer>" for a in range(20) for b in range(20)
    ]
    special = ["<|endoftext|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(text, trainer)
    tokenizer = Qwen2TokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    files = folder / "files"
    model.save_pretrained(files)
    tokenizer.save_pretrained(files)
    rows = [
        {"path": f.name, "size": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
        for f in sorted(files.iterdir())
    ]
    manifest = {
        "name": "tiny",
        "kind": "model",
        "source": "test",
        "repository": "test/tiny",
        "revision": "0",
        "files": rows,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def make_prompts(folder: Path, rows: int = 64) -> Path:
    """A prompts folder as the prepare stage writes it."""
    folder.mkdir(parents=True)
    pairs = [(i % 7, i % 5) for i in range(rows)]
    table = pa.Table.from_pylist(
        [
            {
                "prompt": [{"role": "user", "content": f"{a} + {b} = ?"}],
                "problem": f"{a} + {b} = ?",
                "solution": f"${a + b}$",
                "answer": str(a + b),
                "uuid": str(i),
            }
            for i, (a, b) in enumerate(pairs)
        ]
    )
    pq.write_table(table, folder / "train.parquet")
    return folder


@atexit.register
def say_if_a_process_group_is_open():
    """In a rank, which imports this for its reward: one that ends so may be aborted by Gloo's threads."""
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_initialized():
        print("a process group was left open", flush=True)


@atexit.register
def die_in_the_last_moment():
    """In a rank, after all its work."""
    if "TINY_ABORT" in os.environ:
        os.abort()


def digits(completions, **kwargs):
    """A reward that a random model can raise: the share of characters that are digits. TINY_PAUSE: it takes so many seconds."""
    time.sleep(float(os.environ.get("TINY_PAUSE", 0)))
    texts = [c[0]["content"] for c in completions]
    return [sum(ch.isdigit() for ch in text) / max(1, len(text)) for text in texts]


def constant(completions, **kwargs):
    """A reward that teaches nothing."""
    return [1.0] * len(completions)


def never(completions, **kwargs):
    """A reward that hangs."""
    time.sleep(3600)


def broken(completions, **kwargs):
    """A reward that fails."""
    raise RuntimeError("this reward is broken")


def settings(**grpo):
    """Train settings for two steps or so in seconds."""
    return {
        "train": {
            "grpo": {
                "use_cpu": True, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
                "learning_rate": 1.0e-3, "max_steps": 4, "save_steps": 2, "seed": 7, "gradient_checkpointing": False, **grpo,
            },
            "rewards": {"reward_funcs": ["tiny:digits"]},
        }
    }  # fmt: skip
