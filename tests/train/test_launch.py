"""What accelerate is told, and when a rank counts as hung."""

import os
import socket
import time

import pytest
from openr1_repro.stage import UserError
from openr1_repro.train import launch
from openr1_repro.train.settings import TrainSettings


def config(**section):
    return launch.accelerate_config(TrainSettings.model_validate(section))


def test_one_process_on_a_cpu():
    told = config(grpo={"use_cpu": True})
    assert (told["distributed_type"], told["num_processes"], told["use_cpu"], told["mixed_precision"]) == (
        "NO",
        1,
        True,
        "no",
    )


def test_several_processes_get_a_free_port_of_their_own():
    told = config(accelerate={"num_processes": 4})
    assert (told["distributed_type"], told["main_process_port"], told["mixed_precision"]) == ("MULTI_GPU", 0, "bf16")


def test_deepspeed_keeps_the_variant_s_keys_and_zero_3_saves_whole_models():
    told = config(
        accelerate={"num_processes": 2, "deepspeed_config": {"zero_stage": 3, "offload_optimizer_device": "cpu"}}
    )
    assert told["distributed_type"] == "DEEPSPEED"
    assert told["deepspeed_config"] == {
        "zero_stage": 3,
        "offload_optimizer_device": "cpu",
        "zero3_save_16bit_model": True,
    }


def test_several_machines_meet_at_the_job_s_first_node(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "70123")
    told = config(accelerate={"num_processes": 16, "num_machines": 2})
    assert (told["main_process_ip"], told["main_process_port"]) == (socket.gethostname(), 20123)
    assert "--nodes=2" in launch.launcher(2)


def test_several_machines_without_slurm_are_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="num_machines: 2.*profiles/slurm"):
        launch.launcher(2)


def test_a_rank_is_hung_when_its_last_word_is_old(tmp_path):
    assert launch.hung_ranks(tmp_path, 60, time.time()) == []
    assert launch.hung_ranks(tmp_path, 60, time.time() - launch.LOADING_SECONDS - 1) == [
        "no process got as far as training"
    ]
    (tmp_path / "heartbeat").mkdir()
    for rank, age in (("rank-0", 10), ("rank-1", 100)):
        beat = tmp_path / "heartbeat" / rank
        beat.write_text("step 3: generate")
        os.utime(beat, (time.time() - age, time.time() - age))
    assert launch.hung_ranks(tmp_path, 60, time.time() - 200) == ["rank-1 has been at `step 3: generate`"]
