"""A small world on disk: data sets with OpenR1-Math's schema, a byte-level tokenizer, benchmarks; laid out as the download stage does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

SCHEMA = {
    "problem": pl.String, "solution": pl.String, "answer": pl.String, "problem_type": pl.String, "question_type": pl.String, "source": pl.String,
    "uuid": pl.String, "is_reasoning_complete": pl.List(pl.Boolean), "generations": pl.List(pl.String), "correctness_math_verify": pl.List(pl.Boolean),
    "correctness_llama": pl.List(pl.Boolean), "finish_reasons": pl.List(pl.String), "correctness_count": pl.Int64,
    "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
}  # fmt: skip
TEMPLATE = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% else %}<|User|>{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>{% endif %}"


def row(problem: str | None, answer: str | None = "7", **values: Any) -> dict[str, Any]:
    """One row of OpenR1-Math-220k, unremarkable where nothing is said."""
    row = {
        "problem": problem, "solution": f"We see it is {answer}.", "answer": answer, "problem_type": "Algebra", "question_type": "math-word-problem",
        "source": "olympiads", "uuid": None, "is_reasoning_complete": [True, True], "generations": ["<think>", "<think>"],
        "correctness_math_verify": [True, False], "correctness_llama": None, "finish_reasons": ["stop", "stop"], "correctness_count": 1,
        "messages": [{"role": "user", "content": problem}],
    }  # fmt: skip
    return row | values


@pytest.fixture
def world(tmp_path: Path):
    """Assets of one model, one data set per call of ``world.dataset``, and benchmarks."""
    return World(tmp_path)


class World:
    """Writes assets below ``root`` and runs the stage on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.assets = root / "assets"
        model = self.assets / "models" / "tiny" / "files"
        model.mkdir(parents=True)
        write_tokenizer(model)

    def dataset(
        self, rows: list[dict[str, Any]], name: str = "openr1", file: str = "data/train-00000-of-00001.parquet"
    ) -> Path:
        """Write ``rows`` as a data set's file; rows without uuid are named r0, r1 …"""
        path = self.assets / "datasets" / name / "files" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [r | {"uuid": r["uuid"] or f"r{i}"} for i, r in enumerate(rows)]
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(path)
        return path

    def benchmark(self, name: str, problems: list[str]) -> dict[str, Any]:
        """Write a benchmark and return its entry in the stage's settings."""
        path = self.assets / "datasets" / name / "files" / "test.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"problem": p}) + "\n" for p in problems))
        return {name: {"dataset": name, "version": 1}}

    def settings(
        self, benchmarks: dict[str, Any] | None = None, chat: dict[str, Any] | None = None, **prepare: Any
    ) -> dict[str, Any]:
        """The stage's settings, as the workflow passes them."""
        return {
            "chat": chat or {}, "prepare": {"datasets": [{"asset": "openr1"}]} | prepare, "model": "tiny", "benchmarks": benchmarks or {},
        }  # fmt: skip

    def run(self, *, pass_rates: Path | None = None, cache: Path | None = None, **settings: Any) -> "Result":
        """Run the stage in this process."""
        from openr1_repro.prepare.__main__ import prepare
        from openr1_repro.prepare.settings import StageSettings

        output = self.root / "prompts"
        prepare(StageSettings.model_validate(self.settings(**settings)), self.assets, output, pass_rates, cache)
        return Result(output)

    def command(self, output: Path, *arguments: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
        """Run the stage as a command of its own, settings in a file."""
        file = self.root / "settings.json"
        file.write_text(json.dumps(self.settings(**settings)))
        words = [sys.executable, "-m", "openr1_repro.prepare", "--settings", f"@{file}", "--assets", str(self.assets)]
        environment = os.environ | {"PYTHONPATH": "workflow"}
        return subprocess.run(
            [*words, "--output", str(output), *arguments], env=environment, capture_output=True, text=True
        )


class Result:
    """What the stage wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train = pl.read_parquet(folder / "train.parquet")
        self.validation = pl.read_parquet(folder / "validation.parquet")
        self.funnel = json.loads((folder / "funnel.json").read_text())
        self.dropped = dict(pl.read_parquet(folder / "dropped.parquet").select("uuid", "step").iter_rows())

    @property
    def uuids(self) -> set[str]:
        return {*self.train["uuid"], *self.validation["uuid"]}

    def step(self, name: str) -> dict[str, Any]:
        return next(s for s in self.funnel["steps"] if s["name"] == name)


def write_tokenizer(folder: Path, template: str = TEMPLATE) -> None:
    """A byte-level BPE with a few merges and the special tokens of DeepSeek's template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [
        "Find the number of integers such that the sum of the digits is what it is.",
        "Let $x$ be a real number. Compute $x^2$.",
    ] * 5
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", "<|User|>", "<|Assistant|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {
            "__type": "AddedToken",
            "content": "<s>",
            "lstrip": False,
            "normalized": True,
            "rstrip": False,
            "single_word": False,
        },
        "eos_token": "</s>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
