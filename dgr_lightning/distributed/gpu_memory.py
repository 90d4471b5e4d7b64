"""The memory of this machine's GPUs, without starting CUDA in the process that asks.

CUDA, once started, keeps some hundred MB of the first GPU as long as its process lives; the process that reads the command line
lives as long as the run.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

_ASK = """
from torch import cuda
print(min(cuda.get_device_properties(index).total_memory for index in range(cuda.device_count())))
"""


@cache
def smallest_gpu_memory() -> int | None:
    """Returns the bytes of the GPU with the least memory of those that are visible; None where there is none, or no answer.

    A process that has started CUDA asks by itself.
    """
    import torch

    if torch.cuda.is_initialized():
        return min(torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count()))
    answer = subprocess.run([sys.executable, "-P", "-c", _ASK], capture_output=True, text=True, check=False)
    return int(answer.stdout) if answer.returncode == 0 and answer.stdout.strip().isdigit() else None
