"""ZeRO on two processes, on CPUs: sharded training stops, resumes and publishes whole models. `make test` installs DeepSpeed for it."""

import json
import signal
from pathlib import Path

import pytest
import tiny
from running import children_gone, log_of, start, train, wait_for, weights_of

pytest.importorskip("torch")
DEEPSPEED = Path(__file__).parents[2] / ".envs" / "deepspeed"
pytestmark = [
    pytest.mark.train_env,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DEEPSPEED.exists(), reason="needs .envs/deepspeed (make .envs/deepspeed/.ready)"),
]


@pytest.mark.parametrize("stage", [2, 3])
def test_sharded_training_stops_resumes_and_publishes_whole_models(inputs, tmp_path, monkeypatch, stage):
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("PYTHONPATH", str(DEEPSPEED))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    settings = tiny.settings(per_device_train_batch_size=4, save_steps=1, bf16=False, learning_rate=1.0e-2)
    settings["train"]["accelerate"] = {
        "num_processes": 2, "distributed_type": "DEEPSPEED", "mixed_precision": "no", "deepspeed_config": {"zero_stage": stage},
    }  # fmt: skip
    process = start(inputs, tmp_path, settings, pause=2.0)
    wait_for(tmp_path, "step 1/4", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 75
    assert children_gone(tmp_path)
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert "resuming from step-" in output
    assert "left open" not in output
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "training" / "train.json").read_text())["processes"] == 2
    assert list(weights_of(tmp_path)) == ["step-1", "step-2", "step-3", "step-4"]
    published = tmp_path / "training" / "checkpoints" / "step-4"
    assert not [file.name for file in published.iterdir() if "zero" in file.name or "global_step" in file.name]
    before, after = (
        AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (inputs / "model" / "files", published)
    )
    assert before.keys() == after.keys()
    assert all(after[name].isfinite().all() and not after[name].equal(before[name]) for name in before)
