"""A rank under torchrun that starts what an engine starts, which initialises a process group of its own."""

import subprocess
import sys

from openr1_repro.train.engine import only_gpu
from openr1_repro.train.server import free_port

GROUP = f"init_process_group('gloo', 'tcp://127.0.0.1:{free_port()}', rank=0, world_size=1)"

with only_gpu(0):
    subprocess.run(
        [sys.executable, "-c", f"import torch.distributed; torch.distributed.{GROUP}"], check=True, timeout=40
    )
