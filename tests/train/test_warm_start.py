"""The warm start: the verified traces and no others, and a model asset that GRPO can start from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from openr1_repro.stage import UserError
from openr1_repro.train import traces

HERE = Path(__file__).parent


def make_dataset(folder, rows):
    (folder / "files" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "files" / "data" / "train-00000.parquet")
    (folder / "manifest.json").write_text(
        json.dumps({"name": "traces", "files": [{"path": "data/train-00000.parquet"}]})
    )
    return folder


def row(uuid, generations, verdicts, llama=None, complete=None):
    return {
        "uuid": uuid, "generations": generations, "correctness_math_verify": verdicts, "correctness_llama": llama,
        "is_reasoning_complete": complete,
    }  # fmt: skip


def test_only_right_and_complete_traces_of_wanted_problems(tmp_path):
    rows = [
        row("a", ["x", "y"], [False, True], complete=[True, True]),
        row("b", ["x"], [False]),
        row("c", ["x", "y"], [True, True], complete=[False, True]),
        row("d", ["x", "y"], None, llama=[False, True]),
        row("e", None, None),
        row("unwanted", ["x"], [True]),
        row("a", ["second"], [True]),
    ]
    dataset = make_dataset(tmp_path / "d", rows)
    assert dict(traces.verified([dataset], set("abcde"))) == {"a": "y", "c": "y", "d": "y"}


def test_a_data_set_without_traces_is_named(tmp_path):
    dataset = make_dataset(tmp_path / "d", [{"uuid": "a", "problem": "?"}])
    with pytest.raises(UserError, match=r"train-00000\.parquet: no traces"):
        list(traces.verified([dataset], {"a"}))


@pytest.mark.train_env
@pytest.mark.timeout(1800)
def test_it_leaves_a_model_that_has_learned_the_traces(tmp_path):
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    tiny.make_model(tmp_path / "model")
    tiny.make_prompts(tmp_path / "prompts", rows=16)
    trace = "<think>\nx\n</think>\n<answer>\n1\n</answer>"
    make_dataset(tmp_path / "data", [row(str(i), [trace], [i != 3]) for i in range(16)])
    sft = {"use_cpu": True, "per_device_train_batch_size": 5, "num_train_epochs": 2, "learning_rate": 1.0e-2}
    settings = {"warm_start": {"sft": sft}}
    command = [sys.executable, "-m", "openr1_repro.train.warm_start", "--settings", json.dumps(settings)]
    command += ["--model", "model", "--dataset", "data", "--prompts", "prompts", "--work", "work", "--output", "out"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": os.pathsep.join([str(HERE.parents[1] / "workflow"), os.environ.get("PYTHONPATH", "")])}  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 verified traces" in done.stdout
    losses = [float(line.split("loss ")[1].split()[0]) for line in done.stdout.splitlines() if "loss " in line]
    assert losses[-1] < losses[0]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["name"] == "tiny-warm-start"
    assert {file["path"] for file in manifest["files"]} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
    }
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "files")
