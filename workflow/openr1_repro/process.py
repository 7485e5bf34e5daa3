"""What a child process does about its parent."""

import ctypes
import os
import signal
import sys
from pathlib import Path

SUPERVISOR = "OPENR1_REPRO_SUPERVISOR"
"""Environment variable with the supervisor's process id."""


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for signal ``number`` when the process that started this one is gone, however it went: a killed run leaves nothing
    on the GPUs, and no stage runs on beside its rerun."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
        supervisor = os.environ.get(SUPERVISOR)
        if supervisor and not Path("/proc", supervisor).exists():  # gone already
            os.kill(os.getpid(), signal.SIGKILL)
