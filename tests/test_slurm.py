"""The SLURM profile on a real SLURM: controller, two nodes and munge on loopback, started and stopped here."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = Path(
    "/etc/slurm/slurm.conf"
)  # srun inside a job looks only here: the plugin strips SLURM_* from its environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(700),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="needs Debian's slurm-wlm and munge"),
    pytest.mark.skipif(CONF.exists() or os.getuid() != 0, reason="needs root on a machine that is in no cluster"),
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which ``sbatch`` reaches a cluster of two nodes, both this machine."""
    home = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(f"""\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldPort={free_port()}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs={os.cpu_count()} RealMemory=16000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs={os.cpu_count()} RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    (home / "state").mkdir()
    key = home / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = dict(os.environ)
    servers = []
    try:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={home}/munge.socket", f"--key-file={key}",
             f"--pid-file={home}/munge.pid", f"--log-file={home}/munge.log", f"--seed-file={home}/munge.seed"],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "n1"],
            ["slurmd", "-D", "-N", "n2"],
        ):  # fmt: skip
            servers.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            time.sleep(2)
        for _ in range(30):
            state = subprocess.run(
                ["sinfo", "--noheader", "--format=%D %t"], env=environment, capture_output=True, text=True
            )
            if state.stdout.strip() == "2 idle":
                break
            time.sleep(1)
        else:
            pytest.fail(f"the nodes did not come up: {state}")
        yield environment
    finally:
        CONF.unlink()
        for server in reversed(servers):
            server.terminate()
        for server in servers:
            server.wait(timeout=30)


VARIANT = """\
base: quickstart
train:
  accelerate:
    num_machines: 2
    num_processes: 2
  grpo:
    max_steps: 2
    num_generations: 4
    per_device_train_batch_size: 8
"""


def test_jobs_run_on_the_cluster_and_training_on_two_nodes_of_it(slurm: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for name in ("config", "envs", "profiles", "workflow"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "config/variants/two-nodes.yaml").write_text(VARIANT)
    environment = {**slurm, "OPENR1_REPRO_ENVS": str(ROOT / ".envs")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["snakemake", "--profile", "profiles/slurm", "--config", "variants=[two-nodes]", "--until", "train", "--slurm-no-account",
         "--set-resources", "train:nodes=2", "train:tasks=2", "train:mpi='srun'",
         "--latency-wait", "10", "--slurm-init-seconds-before-status-checks", "5", "--slurm-status-command", "squeue",
         "--default-resources", "mem_mb=2000", "runtime=10", "--max-threads", "1", "--retries", "0"],
        cwd=root, env=environment, text=True, capture_output=True, timeout=580,
    )  # fmt: skip
    text = done.stdout + done.stderr
    logs = "".join(file.read_text() for file in root.glob("logs/*/train.log"))
    assert done.returncode == 0, text[-4000:] + logs[-6000:]
    assert "has been submitted with SLURM jobid" in text
    training = root / "results/runs/two-nodes/training"
    facts = json.loads((training / "train.json").read_text())
    assert (facts["steps"], facts["processes"]) == (2, 2)
    assert logs.count("step 2/2") == 1
    assert json.loads((training.parent / ".work/accelerate.json").read_text())["num_machines"] == 2
