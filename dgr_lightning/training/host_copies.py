"""Copies of tensors in host memory, which is allocated once: a checkpoint is written from them while training goes on.

With CUDA the memory is pinned, so that copies run at the speed of the bus. It is registered with the driver rather than taken
from torch's allocator of pinned memory, which would round it up to a power of two.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.cuda import _pin_memory_utils as pinning
from torch.distributed.tensor import DTensor

from dgr_lightning.console import say

_ALIGNMENT = 64  # bytes; of every tensor in the memory, enough for any type


class HostCopies:
    """Host memory that holds one copy of a set of tensors at a time; the next set takes the same memory again."""

    def __init__(self) -> None:
        """Allocates nothing yet."""
        self._memory = torch.empty(0, dtype=torch.uint8)

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns copies of tensors on the CPU, valid until the next call; sharded tensors stay sharded.

        Args:
            tensors: on any device, of any type; of a sharded one this rank's shard is copied.
        """
        local = {name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}
        needed = sum(_aligned(tensor.nbytes) for tensor in local.values())
        on_cuda = any(tensor.is_cuda for tensor in local.values())
        if needed > self._memory.numel():
            self.free()
            self._memory = _allocate(needed, pinned=on_cuda)
        copies, offset = {}, 0
        for name, source in local.items():
            piece = self._memory[offset : offset + source.nbytes].view(source.dtype).view(source.shape)
            piece.copy_(source, non_blocking=True)
            copies[name] = _sharded_like(tensors[name], piece)
            offset += _aligned(source.nbytes)
        if on_cuda:
            torch.cuda.current_stream().synchronize()
        return copies

    def free(self) -> None:
        """Gives the memory back; copies that somebody still holds keep it."""
        self._memory = torch.empty(0, dtype=torch.uint8)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _allocate(size: int, *, pinned: bool) -> Tensor:
    memory = torch.empty(size, dtype=torch.uint8)
    if pinned:
        try:
            pinning.pin_memory(memory.data_ptr(), size)
        except RuntimeError:
            say("[yellow]the host memory for checkpoints could not be pinned: copying into it takes longer[/]")
        else:
            release = weakref.finalize(memory.untyped_storage(), pinning.unpin_memory, memory.data_ptr())
            release.atexit = False  # the driver may be gone by then
    return memory


def _sharded_like(tensor: Tensor, local: Tensor) -> Tensor:
    """Returns a shard on the CPU as the sharded tensor that it was copied from; `DTensor.from_local` would move it back."""
    if not isinstance(tensor, DTensor):
        return local
    names, context = tensor.__tensor_flatten__()
    parts = {name: getattr(tensor, name) for name in names} | {"_local_tensor": local}
    copied: Tensor = DTensor.__tensor_unflatten__(parts, context, tensor.size(), tensor.stride())
    return copied
