"""The train stage as a command, on a CPU with a tiny model: resume, preemption, damage, and every way it stops with a diagnosis."""

import json
import signal
import time

import psutil
import pytest
import tiny
from running import children_gone, log_of, start, train, wait_for, weights_of

pytest.importorskip("torch")
pytestmark = [pytest.mark.train_env, pytest.mark.timeout(1800)]  # a dozen seconds each on a machine at rest


@pytest.fixture(scope="module")
def unbroken(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    status, output = train(inputs, folder, tiny.settings(save_steps=1))
    assert status == 0, output
    return folder


def test_a_run_leaves_models_a_log_and_completions(unbroken):
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer

    training = unbroken / "training"
    assert list(weights_of(unbroken)) == ["step-1", "step-2", "step-3", "step-4"]
    rows = log_of(unbroken)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "reward", "entropy", "rewards/digits/mean", "frac_reward_zero_std", "clip_ratio/region_mean",
            "completions/mean_length", "learning_rate", "grad_norm", "trained_tokens"} <= set(rows[0])  # fmt: skip
    completions = [pq.read_table(file) for file in sorted((training / "completions").glob("*.parquet"))]
    assert [len(table) for table in completions] == [8, 8, 8, 8]
    model = training / "checkpoints" / "step-4"
    assert AutoTokenizer.from_pretrained(model).chat_template == tiny.TEMPLATE
    assert AutoModelForCausalLM.from_pretrained(model).config.model_type == "qwen2"
    assert "base_model: test/tiny" in (model / "README.md").read_text()
    assert not list(model.glob("optimizer*"))
    facts = json.loads((training / "train.json").read_text())
    assert (facts["steps"], facts["device"], facts["attn_implementation"]) == (4, "cpu", "sdpa")
    assert "step 4/4" in (unbroken / "out.log").read_text()


def test_sigterm_saves_and_the_rerun_ends_as_if_nothing_had_happened(inputs, unbroken, tmp_path):
    settings = tiny.settings(save_steps=1)
    process = start(inputs, tmp_path, settings, pause=2.0)
    wait_for(tmp_path, "step 1/4", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=900) == 75
    assert children_gone(tmp_path)
    assert not (tmp_path / "training").exists()
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert "resuming from step-" in output
    assert log_of(tmp_path) == log_of(unbroken)  # to the last bit: one process, one thread
    assert weights_of(tmp_path) == weights_of(unbroken)


def test_kill_and_a_corrupt_checkpoint_cost_steps_and_nothing_else(inputs, unbroken, tmp_path):
    settings = tiny.settings(save_steps=1)
    process = start(inputs, tmp_path, settings, pause=2.0)
    wait_for(tmp_path, "step 3/4", process)
    process.kill()
    process.wait()
    deadline = time.time() + 60
    while not children_gone(tmp_path):  # they die with their supervisor
        assert time.time() < deadline
        time.sleep(0.1)
    newest = max((tmp_path / "work" / "checkpoints").glob("step-*"), key=lambda c: int(c.name[5:]))
    with open(newest / "model.safetensors", "r+b") as stream:
        stream.seek(200)
        stream.write(b"\xff\xff")
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert f"checkpoint {newest.name} is damaged" in output
    assert log_of(tmp_path) == log_of(unbroken)
    assert weights_of(tmp_path)["step-4"] == weights_of(unbroken)["step-4"]
    killed, _ = json.loads((tmp_path / "work" / "sessions.json").read_text())
    assert killed["seconds"] >= 6.0  # three pauses: what a killed run took counts, too


def test_a_finished_run_is_published_again_without_training(inputs, unbroken):
    before = weights_of(unbroken)
    status, output = train(inputs, unbroken, tiny.settings(save_steps=1))
    assert status == 0, output
    assert output.count("step 1/4") == 1
    assert weights_of(unbroken) == before


def test_a_process_that_dies_after_its_last_step_has_still_finished(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_ABORT", "1")
    status, output = train(inputs, tmp_path, tiny.settings(max_steps=1))
    assert status == 0, output
    assert list(weights_of(tmp_path)) == ["step-1"]


def test_two_processes_stop_and_resume_with_another_recipe_starting_afresh(inputs, tmp_path):
    settings = tiny.settings(per_device_train_batch_size=4, max_steps=3, save_steps=10)
    settings["train"]["accelerate"] = {"num_processes": 2}
    process = start(inputs, tmp_path, settings, pause=2.0)
    wait_for(tmp_path, "step 1/3", process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=900) == 75
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert "resuming from step-" in output
    assert "left open" not in output
    assert json.loads((tmp_path / "training" / "train.json").read_text())["processes"] == 2
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2, 3]
    settings["train"]["grpo"]["max_steps"] = 1
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert "starting afresh: settings changed" in output
    assert [row["step"] for row in log_of(tmp_path)] == [1]


@pytest.mark.parametrize("ranks", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_a_killed_rank_ends_the_run_and_the_rerun_goes_on(inputs, tmp_path, ranks):
    settings = tiny.settings(per_device_train_batch_size=8 // ranks, max_steps=4, save_steps=1)
    settings["train"]["accelerate"] = {"num_processes": ranks}
    process = start(inputs, tmp_path, settings, pause=2.0)
    wait_for(tmp_path, "step 2/4", process)
    ranks = [p for p in psutil.Process(process.pid).children(recursive=True) if p.environ().get("LOCAL_RANK") == "1"]
    ranks[0].kill()
    assert process.wait(timeout=120) == 1
    assert "a rank was killed" in (tmp_path / "out.log").read_text().splitlines()[-1]
    assert children_gone(tmp_path)
    assert not (tmp_path / "training").exists()
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert "resuming from step-" in output
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2, 3, 4]


def test_a_residual_stream_in_autocast_s_type(inputs, tmp_path):
    import torch
    from openr1_repro.train.trainer import as_autocast
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(inputs / "model" / "files")
    ids = torch.arange(96).view(2, 48)
    with torch.no_grad():
        exact, stream = (model(ids, output_hidden_states=True)[name] for name in ("logits", "hidden_states"))
        model.get_input_embeddings().register_forward_hook(as_autocast)
        assert model(ids).logits.equal(exact)  # as it was, outside autocast
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(ids, output_hidden_states=True)
    assert {layer.dtype for layer in stream} == {torch.float32}
    assert {layer.dtype for layer in rounded.hidden_states[:-1]} == {torch.bfloat16}  # the last one is the final norm's
    assert (rounded.logits - exact).abs().mean() < 0.02 * exact.std()

    weights = []
    for residual in (False, True):
        settings = tiny.settings(bf16=True, max_steps=1)
        settings["train"] |= {"autocast_residual": residual, "accelerate": {"mixed_precision": "bf16"}}
        status, output = train(inputs, tmp_path / str(residual), settings)
        assert status == 0, output
        weights.append(weights_of(tmp_path / str(residual))["step-1"])
    assert weights[0] != weights[1]  # one process, one thread: equal to the last bit otherwise


def test_lora_trains_an_adapter_and_publishes_whole_models(inputs, tmp_path):
    from transformers import AutoModelForCausalLM

    settings = tiny.settings(max_steps=1)
    settings["train"]["lora"] = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    status, output = train(inputs, tmp_path, settings)
    assert status == 0, output
    assert (tmp_path / "work" / "checkpoints" / "step-1" / "adapter_config.json").exists()
    model = tmp_path / "training" / "checkpoints" / "step-1"
    assert not list(model.glob("adapter*"))
    ours, base = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (model, inputs / "model" / "files"))
    changed = {name.split(".")[-2] for name in base if not ours[name].equal(base[name])}
    assert changed == {"q_proj", "v_proj"}


def test_a_loss_that_is_no_number_stops_the_run(inputs, tmp_path):
    status, output = train(inputs, tmp_path, tiny.settings(learning_rate=1.0e38, max_grad_norm=0.0, save_steps=1))
    assert status == 1
    assert "not a finite number" in output
    assert "learning_rate" in output
    assert not (tmp_path / "training").exists()


def test_rewards_without_spread_stop_the_run(inputs, tmp_path):
    settings = tiny.settings(max_steps=20)
    settings["train"]["rewards"]["reward_funcs"] = ["tiny:constant"]
    settings["train"]["stop_after_steps_without_spread"] = 2
    status, output = train(inputs, tmp_path, settings)
    assert status == 1
    assert "step 2: for 2 steps every group got equal rewards" in output


def test_a_rank_that_hangs_is_found_and_ended(inputs, tmp_path):
    settings = tiny.settings()
    settings["train"]["rewards"]["reward_funcs"] = ["tiny:never"]
    settings["train"]["watchdog_minutes"] = 0.1
    status, output = train(inputs, tmp_path, settings)
    assert status == 1
    assert "rank-0 has been at `step 1: rewards`" in output
    assert "in never" in output  # the stack says where
    assert children_gone(tmp_path)


def test_reward_workers_that_die_are_replaced(inputs, tmp_path):
    settings = tiny.settings(max_steps=6, save_steps=6)
    settings["train"]["rewards"]["reward_funcs"] = ["tiny:digits", "accuracy"]
    process = start(inputs, tmp_path, settings, pause=1.0)
    wait_for(tmp_path, "step 2/6", process)
    workers = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "verify.py" in str(child.cmdline())
    ]
    for worker in workers:
        worker.kill()
    assert len(workers) > 1  # and what forks them
    assert process.wait(timeout=900) == 0, (tmp_path / "out.log").read_text()
    assert [row["rewards/accuracy/mean"] for row in log_of(tmp_path)] == [0.0] * 6  # a random model is never right


def test_a_reward_that_fails_shows_its_traceback(inputs, tmp_path):
    settings = tiny.settings()
    settings["train"]["rewards"]["reward_funcs"] = ["tiny:broken"]
    status, output = train(inputs, tmp_path, settings)
    assert status == 1
    assert "this reward is broken" in output
    assert "training failed with status" in output
