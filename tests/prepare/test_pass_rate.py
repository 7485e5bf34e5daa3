"""Pass rates of the embedded model: sampled, verified, resumed; in the training environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

HUB = Path("workflow/resources/hub").resolve()


@pytest.mark.train_env
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.gpu)])
def test_samples_and_rates(tmp_path: Path, engine: str) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / "embedded"
    folder.mkdir()
    (folder / "files").symlink_to(next((HUB / "models").iterdir()))
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    published = pl.read_parquet(HUB / "datasets/embedded--openr1-math-tiny/data/*.parquet")
    rows = (
        published.filter(pl.col("correctness_math_verify").list.any())
        .drop_nulls(["problem", "answer", "solution"])
        .head(24)
    )
    message = pl.struct(pl.lit("user").alias("role"), pl.col("problem").alias("content"))
    rows.with_columns(pl.concat_list(message).alias("prompt")).write_parquet(prompts / "train.parquet")
    settings = {
        "pass_rate": {"k": 4, "max_new_tokens": 64, "temperature": 0.7, "engine": engine},
        "gold_column": "solution",
    }
    path = os.pathsep.join(["workflow", os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if engine == "transformers":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    else:
        settings["pass_rate"]["vllm"] = {"gpu_memory_utilization": 0.06, "kv_cache_memory_bytes": 1 << 30}
    output = tmp_path / "rates.parquet"
    command = [
        sys.executable, "-m", "openr1_repro.prepare.pass_rate", "--settings", json.dumps(settings), "--model", str(folder),
        "--prompts", str(prompts), "--cache", str(tmp_path / "responses"), "--output", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rates = pl.read_parquet(output)
    assert rates["uuid"].to_list() == rows["uuid"].to_list()
    assert set(rates["k"]) == {4}
    assert all(rate * 4 == int(rate * 4) for rate in rates["rate"])
    assert rates["rate"].mean() > 0  # the embedded model is right now and then
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "96 of them stored, 0 to generate" in again.stdout
    assert pl.read_parquet(output).equals(rates)
