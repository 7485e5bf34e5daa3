"""What a child process does about its parent."""

import ctypes
import os
import signal
import sys


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it is gone, so that a killed run leaves nothing on the GPUs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:  # gone already
            os.kill(os.getpid(), signal.SIGKILL)
