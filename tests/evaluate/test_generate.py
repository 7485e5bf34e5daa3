"""Generation on a CPU by a tiny random model: reproducible, resumable, never stale."""

import json
import subprocess
import sys

import polars as pl
import pytest

pytest.importorskip("torch")
from openr1_repro.evaluate.generate import main  # noqa: E402

pytestmark = pytest.mark.train_env


@pytest.fixture
def run(assets, tmp_path, monkeypatch, capsys):
    """Calls the stage as its command line would: gives the table and what was printed."""

    def call(settings, *arguments):
        output = tmp_path / "responses.parquet"
        command = [
            "generate",
            "--settings",
            settings,
            "--assets",
            assets,
            "--work",
            tmp_path,
            "--output",
            output,
            *arguments,
        ]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        main()
        return pl.read_parquet(output), capsys.readouterr().out

    return call


def test_every_sample_of_every_problem(settings, tiny_model, run):
    rows, _ = run(settings(), "--model", tiny_model())
    assert rows.columns == [
        "model", "benchmark", "item", "sample", "seed", "problem", "gold", "prompt", "text", "num_tokens", "finish_reason",
    ]  # fmt: skip
    assert rows.select("item", "sample").rows() == [(item, sample) for item in range(12) for sample in range(2)]
    assert rows["model"].unique().to_list() == ["base"]
    assert rows["gold"][2] == "4"
    assert set(rows["finish_reason"]) <= {"stop", "length"}
    assert rows["num_tokens"].max() <= 12
