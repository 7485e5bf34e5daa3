"""How the workflow runs a stage: its output is seen and kept, a failure is explained, signals arrive."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKFLOW = str(Path(__file__).parents[1] / "workflow")
ENVIRONMENT = {**os.environ, "PYTHONPATH": WORKFLOW}


def start(tmp_path: Path, code: str, env: str = "workflow") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "openr1_repro.job", "--env", env, "--log", str(tmp_path / "logs" / "x.log"),
         "--label", "train tiny", "--", "-c", code],
        env=ENVIRONMENT, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_output_is_mirrored_and_kept(tmp_path: Path) -> None:
    job = start(tmp_path, "import sys; print('one'); print('two', file=sys.stderr); print('ünï')")
    out, _ = job.communicate(timeout=30)
    assert job.returncode == 0
    assert sorted(out.splitlines()) == ["train tiny | one", "train tiny | two", "train tiny | ünï"]
    assert sorted((tmp_path / "logs" / "x.log").read_text().splitlines()) == ["one", "two", "ünï"]


def test_progress_bar_does_not_flood(tmp_path: Path) -> None:
    job = start(tmp_path, "import sys\nfor i in range(5000): sys.stderr.write(f'{i}%\\r')\nprint('done')")
    out, _ = job.communicate(timeout=30)
    assert out.splitlines()[-1] == "train tiny | done"
    assert len(out.splitlines()) < 20


def test_failure_shows_the_end_of_the_log_and_the_command(tmp_path: Path) -> None:
    job = start(tmp_path, "for i in range(100): print('line', i)\nraise SystemExit(7)")
    _, err = job.communicate(timeout=30)
    assert job.returncode == 7
    assert "failed with exit status 7" in err
    assert "line 99" in err
    assert "line 79" not in err
    assert "python -m openr1_repro.job --env workflow" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_reaches_the_stage(tmp_path: Path, number: signal.Signals) -> None:
    job = start(
        tmp_path,
        f"import signal, time\nsignal.signal({int(number)}, lambda *_: (print('saving', flush=True), exit(3)))\n"
        "print('ready', flush=True)\ntime.sleep(60)",
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "train tiny | ready\n"
    began = time.monotonic()
    job.send_signal(number)
    out, _ = job.communicate(timeout=30)
    assert "saving" in out
    assert job.returncode == 3
    assert time.monotonic() - began < 10


def test_stage_ends_with_a_killed_job(tmp_path: Path) -> None:
    job = start(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    assert job.stdout is not None
    child = int(job.stdout.readline().split()[-1])
    job.kill()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the stage went on")


def test_unknown_environment_is_a_clear_error(tmp_path: Path) -> None:
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "OPENR1_REPRO_PYTHON"}
    job = subprocess.run(
        [sys.executable, "-m", "openr1_repro.job", "--env", "nonsense", "--log", str(tmp_path / "x.log"), "--", "-c", "1"],
        env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=30,
    )  # fmt: skip
    assert job.returncode == 1
    assert "nonsense.txt: no such lock" in job.stderr
    assert "Traceback" not in job.stderr


def test_other_python_replaces_environments(tmp_path: Path) -> None:
    job = subprocess.run(
        [sys.executable, "-m", "openr1_repro.job", "--env", "train", "--log", str(tmp_path / "x.log"), "--",
         "-c", "import sys; print(sys.executable)"],
        env={**ENVIRONMENT, "OPENR1_REPRO_PYTHON": sys.executable}, cwd=tmp_path, text=True, capture_output=True, timeout=30,
    )  # fmt: skip
    assert job.stdout.strip() == sys.executable
    assert not (tmp_path / ".envs").exists()
