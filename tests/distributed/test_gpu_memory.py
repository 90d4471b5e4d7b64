"""The memory of GPUs is asked for in another process."""

import subprocess
import sys
from types import SimpleNamespace

import torch

from dgr_lightning.distributed import gpu_memory


def test_the_smallest_gpu_counts_and_cuda_is_not_started_here(monkeypatch):
    """Where a machine has none, the program ends with an error, and the answer is that nothing is known."""
    gpu_memory.smallest_gpu_memory.cache_clear()
    found = gpu_memory.smallest_gpu_memory()
    assert (found is not None) == torch.cuda.is_available() and not torch.cuda.is_initialized()

    def answered(command, **options):
        assert command[0] == sys.executable
        return SimpleNamespace(returncode=0, stdout="85899345920\n")

    gpu_memory.smallest_gpu_memory.cache_clear()
    monkeypatch.setattr(subprocess, "run", answered)
    assert gpu_memory.smallest_gpu_memory() == 80 * 2**30
    gpu_memory.smallest_gpu_memory.cache_clear()
