"""The train stage on GPUs: every layout runs, weights arrive, a stopped or killed run resumes. `make test-gpu`, on a machine that has one."""

import json
import os
import signal
import time

import psutil
import pytest
import tiny
from running import children_gone, log_of, start, train, wait_for, weights_of

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")
pytestmark = [pytest.mark.gpu, pytest.mark.train_env, pytest.mark.timeout(900)]

from openr1_repro.gpus import Lease  # noqa: E402
from openr1_repro.train import server  # noqa: E402
from openr1_repro.train.settings import TrainSettings  # noqa: E402

needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny.make_model(folder / "model", hidden_size=128)
    tiny.make_prompts(folder / "prompts")
    return folder


def on_gpu(gpus=1, train=None, **grpo):
    """`tiny.settings` with colocated vLLM on a small part of each GPU."""
    settings = tiny.settings(
        use_cpu=False, bf16=True, use_vllm=True, vllm_gpu_memory_utilization=0.06, vllm_max_model_length=128,
        per_device_train_batch_size=8 // gpus, **{"model_init_kwargs": {"dtype": "float32"}, **grpo},
    )  # fmt: skip
    settings["train"]["accelerate"] = {"num_processes": gpus}
    settings["train"] |= train or {}
    if TrainSettings.model_validate(settings["train"]).own_engine:
        # vLLM would measure the GPU's free memory while it starts, and take another test's, run beside it, for its own. It compiles as
        # it does by default: with `enforce_eager` vLLM 0.26's warm-up ended in FlashAttention 3's illegal memory access with this model.
        settings["train"]["vllm"] = {"kv_cache_memory_bytes": 1 << 30, **settings["train"].get("vllm", {})}
    return settings


def deepspeed(stage, gpus=1):
    return {
        "accelerate": {
            "num_processes": gpus, "distributed_type": "DEEPSPEED", "mixed_precision": "bf16", "deepspeed_config": {"zero_stage": stage},
        }
    }  # fmt: skip


LAYOUTS = {
    "engine of its own": {},
    "engine and worker in one process": {"train": {"vllm": {"distributed_executor_backend": "uni"}}},
    "log-probabilities of the sampler": {"train": {"old_logprobs": "sampler"}},
    "sleep mode": {"vllm_enable_sleep_mode": True},
    "engine of TRL": {"train": {"fast_generation": False}},
    "LoRA": {"train": {"lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]}}},
    "ZeRO-2": {"train": deepspeed(2)},
    "ZeRO-3": {"train": deepspeed(3)},
    "Liger": {"use_liger_kernel": True},
    # Where FlashAttention is installed the others train with it; both agree with vLLM's log-probabilities.
    "attention of PyTorch": {"model_init_kwargs": {"dtype": "float32", "attn_implementation": "sdpa"}},
}
ON_TWO = {
    "DDP": {"gpus": 2},
    "ZeRO-2 on two": {"gpus": 2, "train": deepspeed(2, 2)},
    "ZeRO-3 on two": {"gpus": 2, "train": deepspeed(3, 2)},
    "tensor parallel": {"gpus": 2, "vllm_tensor_parallel_size": 2},
}


@pytest.mark.parametrize("layout", [*LAYOUTS, *(pytest.param(name, marks=needs_two) for name in ON_TWO)])
def test_every_layout_trains_and_generates_with_the_trained_weights(inputs, tmp_path, layout):
    options = {**LAYOUTS, **ON_TWO}[layout]
    status, output = train(
        inputs, tmp_path, on_gpu(learning_rate=3.0e-3, **options), gpus="0,1"[: options.get("gpus", 1) * 2 - 1]
    )
    assert status == 0, output[-6000:]
    rows = log_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert list(weights_of(tmp_path)) == ["step-2", "step-4"]
    if options.get("train", {}).get("old_logprobs") != "sampler":
        # Stale weights would be steps of 3e-3 away from the trainer's, rounding to bfloat16 is not.
        assert all(row["sampling/sampling_logp_difference/mean"] < 0.03 for row in rows)
    assert children_gone(tmp_path)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_run_stopped_and_killed_in_the_middle_of_a_step_ends_at_its_last_step(inputs, tmp_path, turn):
    settings = on_gpu(max_steps=36, save_steps=5)
    for step, kill in ((12, "SIGTERM"), (24, "SIGKILL")):
        process = start(inputs, tmp_path, settings, gpus="0")
        wait_for(tmp_path, f"step {step}/36", process)
        process.send_signal(getattr(signal, kill))
        assert process.wait(timeout=120) == (75 if kill == "SIGTERM" else -signal.SIGKILL)
        deadline = time.time() + 60
        while not children_gone(tmp_path):  # they die with their supervisor
            assert time.time() < deadline
            time.sleep(0.1)
    status, output = train(inputs, tmp_path, settings, gpus="0")
    assert status == 0, output[-6000:]
    resumed = [int(line.split("-")[1]) for line in output.splitlines() if line.startswith("resuming from step-")]
    assert all(
        at >= least for at, least in zip(resumed, (12, 20), strict=True)
    )  # SIGTERM saves, SIGKILL loses save_steps
    assert [row["step"] for row in log_of(tmp_path)] == list(range(1, 37))
    facts = json.loads((tmp_path / "training" / "train.json").read_text())
    assert (facts["steps"], facts["resumed_from"]) == (36, [f"step-{step}" for step in resumed])


def test_a_dead_engine_stops_the_run(inputs, tmp_path):
    process = start(inputs, tmp_path, on_gpu(max_steps=1000), gpus="0")
    wait_for(tmp_path, "step 3/1000", process)
    (engine,) = [
        p
        for p in psutil.Process(process.pid).children(recursive=True)
        if "EngineCore" in p.name() + "".join(p.cmdline())
    ]
    os.kill(engine.pid, signal.SIGKILL)
    assert process.wait(timeout=120) == 1
    assert "the vLLM engine died" in (tmp_path / "out.log").read_text().splitlines()[-1]
    assert children_gone(tmp_path)


def test_trl_s_client_talks_to_the_server_and_it_is_gone_afterwards(inputs, tmp_path):
    from trl.generation.vllm_client import VLLMClient

    served = {"gpu_memory_utilization": 0.1, "max_model_len": 128, "enforce_eager": True}
    settings = TrainSettings.model_validate({"grpo": {"use_vllm": True}, "layout": "server", "vllm": served})
    with server.serving(settings, inputs / "model" / "files", tmp_path, Lease(["0"], [])) as running:
        client = VLLMClient(base_url=running.environment["OPENR1_REPRO_VLLM_SERVER"], connection_timeout=60)
        assert client.get_server_info()["model_config"]["logprobs_mode"] == "processed_logprobs"
        completed = client.generate(prompts=[[5, 6, 7], [8, 9]], n=2, max_tokens=8, logprobs=0)
        assert len(completed["completion_ids"]) == len(completed["logprobs"]) == 4
    assert all(process.poll() is not None for process in running.processes.values())


@needs_two
def test_the_server_layout_runs_and_stops_when_its_server_is_killed(inputs, tmp_path):
    layout = {"layout": "server", "vllm": {"gpu_memory_utilization": 0.1, "max_model_len": 128}}
    settings = on_gpu(max_steps=20, train=layout)
    for name in ("vllm_gpu_memory_utilization", "vllm_max_model_length"):
        del settings["train"]["grpo"][name]
    status, output = train(inputs, tmp_path, settings, gpus="0,1")
    assert status == 0, output[-6000:]
    assert len(log_of(tmp_path)) == 20
    settings["train"]["grpo"]["max_steps"] = 1000
    process = start(inputs, tmp_path, settings, gpus="0,1")
    wait_for(tmp_path, "step 3/1000", process)
    (server,) = [p for p in psutil.Process(process.pid).children() if "serve" in p.cmdline()]
    server.kill()
    assert process.wait(timeout=120) == 1
    assert "the vLLM server ended by itself" in (tmp_path / "out.log").read_text()
    assert children_gone(tmp_path)
