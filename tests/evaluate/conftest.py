import json
from pathlib import Path

import polars as pl
import pytest

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A function that makes a random Qwen2 of 40,000 parameters with a byte-level tokenizer, laid out as a downloaded asset."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

    def make(seed: int = 0, template: str | None = TEMPLATE, positions: int = 256) -> Path:
        asset = tmp_path_factory.mktemp("model")
        folder = asset / "files"
        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate(alphabet)}
        inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = tokenizers.decoders.ByteLevel()
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=inner,
            eos_token="<|end|>",
            pad_token="<|pad|>",
            additional_special_tokens=["<|user|>", "<|assistant|>"],
        )
        tokenizer.chat_template = template
        config = transformers.Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
            num_key_value_heads=1, max_position_embeddings=positions, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        torch.manual_seed(seed)
        model = transformers.Qwen2ForCausalLM(config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (asset / "manifest.json").write_text("{}")
        return asset

    return make


@pytest.fixture
def assets(tmp_path):
    """A folder of data-set assets with one benchmark, ``sums``: 12 problems."""
    folder = tmp_path / "assets" / "datasets" / "sums" / "files" / "data"
    folder.mkdir(parents=True)
    rows = [{"problem": f"What is {a} + {a * 3}?", "answer": str(a * 4)} for a in range(12)]
    pl.DataFrame(rows).write_parquet(folder / "test.parquet")
    return tmp_path / "assets"


@pytest.fixture
def settings():
    """A function that gives the stage's settings as JSON, parts replaced."""

    def make(chat: dict | None = None, benchmarks: dict | None = None, **evaluate) -> str:
        benchmarks = benchmarks or {"sums": {"dataset": "sums"}}
        defaults = {"benchmarks": list(benchmarks), "protocol": "lighteval", "temperature": 1.0, "samples": 2}
        defaults["max_new_tokens"] = 12
        chosen = {"chat": chat or {}, "evaluate": defaults | evaluate, "benchmarks": benchmarks}
        return json.dumps(chosen)

    return make
