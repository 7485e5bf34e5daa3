"""What a child process does about its parent."""

import ctypes
import os
import signal
import sys
from pathlib import Path

SUPERVISOR = "OPENR1_REPRO_SUPERVISOR"
"""Environment variable with the supervisor's process id."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it is gone, so that a killed run leaves nothing on the GPUs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        supervisor = os.environ.get(SUPERVISOR)
        if supervisor and not Path("/proc", supervisor).exists():  # gone already
            os.kill(os.getpid(), signal.SIGKILL)
