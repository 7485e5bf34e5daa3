"""GPU leases: no two jobs on one GPU, and a killed parent's children keep theirs. The GPUs are names only; none is touched."""

import subprocess
import sys
import time

import pytest
from openr1_repro import gpus
from openr1_repro.stage import UserError


@pytest.fixture(autouse=True)
def _machine(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    monkeypatch.setenv("OPENR1_REPRO_GPU_LOCKS", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def test_leases_do_not_overlap_and_come_back():
    with gpus.lease(2) as first, gpus.lease(1) as second:
        assert first.devices == ["3", "5"]
        assert second.devices == ["6"]
    with gpus.lease(3) as again:
        assert again.devices == ["3", "5", "6"]


def test_too_many_gpus_are_refused_with_the_setting_to_change():
    with pytest.raises(UserError, match="num_processes"), gpus.lease(4):
        pass


def test_waiting_ends_with_a_message():
    with gpus.lease(2), pytest.raises(UserError, match="did not come free"), gpus.lease(2, wait_seconds=0.2):
        pass


def test_a_child_keeps_the_gpu_of_a_parent_that_is_gone():
    with gpus.lease(3) as lease:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], pass_fds=lease.locks)
    with pytest.raises(UserError, match="did not come free"), gpus.lease(1, wait_seconds=0.2):
        pass
    child.kill()
    child.wait()
    time.sleep(0.1)
    with gpus.lease(3) as lease:
        assert len(lease.devices) == 3


def test_slurm_s_own_choice_is_taken_as_it_is(monkeypatch):
    with gpus.lease(3):
        monkeypatch.setenv("SLURM_JOB_ID", "1")
        with gpus.lease(2) as lease:
            assert lease.devices == ["3", "5"]
            assert lease.locks == []


def test_no_gpu_needs_no_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpus.lease(0) as lease:
        assert lease.devices == []
