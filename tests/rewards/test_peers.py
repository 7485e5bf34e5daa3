"""open-r1's and TRL's own tests of their rewards, with ours in their place.

OPEN_R1_CHECKOUT and TRL_CHECKOUT name checkouts.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytestmark = [pytest.mark.train_env, pytest.mark.timeout(3000)]
HERE = Path(__file__).parent


def own_tests(checkout, plugin):
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "workflow")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-o", "addopts=", "tests/test_rewards.py"]
    done = subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    print(done.stdout[-5000:], done.stderr[-2000:])
    return done.returncode


@pytest.mark.skipif("OPEN_R1_CHECKOUT" not in os.environ, reason="OPEN_R1_CHECKOUT names no checkout of open-r1")
def test_open_r1():
    assert own_tests(os.environ["OPEN_R1_CHECKOUT"], "as_open_r1") == 0


@pytest.mark.skipif("TRL_CHECKOUT" not in os.environ, reason="TRL_CHECKOUT names no checkout of TRL")
def test_trl():
    assert own_tests(os.environ["TRL_CHECKOUT"], "as_trl") == 0
