"""The ranks of a training: the number and device of each, their collectives, and Lightning's strategy for them."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed import torchrun

if TYPE_CHECKING:
    from lightning.pytorch.plugins.environments import ClusterEnvironment
    from lightning.pytorch.strategies import Strategy

# Timeouts of a collective: within a step, and where all ranks wait for one.
_TIMEOUT, _LONG_TIMEOUT = timedelta(minutes=30), timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks.

    Attributes:
        rank: its number, counted from 0.
        size: the world size.
        local_rank: its number on this machine, which is the index of its device.
        tensor_parallel: neighbouring ranks that compute every row together.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    tensor_parallel: int = 1

    @classmethod
    def here(cls, tensor_parallel: int = 1) -> Ranks:
        """Reads the variables that torch's elastic agent sets; a single rank if it did not start this process."""
        if not torchrun.is_active():
            return cls()
        rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank, size, local_rank, tensor_parallel)

    @property
    def data_rank(self) -> int:
        """Which of the `data_size` shards of the rows this process computes."""
        return self.rank // self.tensor_parallel

    @property
    def data_size(self) -> int:
        """Number of shards of the rows."""
        return self.size // self.tensor_parallel

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes files for all ranks."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Returns rank 0's value on every rank; any value that can be pickled. Collective."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=_control_group())
        return values[0]

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sums a tensor over the shards of the rows, in place. Collective."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.tensor_parallel  # every shard is counted by all ranks that compute it
        return values

    def all_gather(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in their order, on every rank; any values that can be pickled. Collective."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=_control_group())
        return values


def init_group(trainer: TrainerConfig, ranks: Ranks) -> None:
    """Creates the process group of a training, before Lightning would; does nothing if it exists, or for a single process.

    The ranks rendezvous in the stage's namespace of the agent's store, since the agent keeps its store for the next stage and
    for the attempt after a restart.
    """
    if trainer.strategy not in ("fsdp", "ddp") or dist.is_initialized():
        return
    cuda = trainer.accelerator == "cuda"
    dist.init_process_group(
        # Checkpoints and broadcast values go over gloo, beside NCCL.
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=torchrun.stage_store(),
        rank=ranks.rank,
        world_size=ranks.size,
        device_id=compute_device(trainer, ranks) if cuda else None,
        timeout=_TIMEOUT,
    )


def destroy_group() -> None:
    """Destroys all process groups; a process that ends while one exists may abort, which would look like a death."""
    _long_wait_group.cache_clear()
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _control_group() -> dist.ProcessGroup:
    """Returns the group in which ranks wait for one of them: while it writes 140 GB, or merges adapters."""
    assert dist.group.WORLD is not None
    return _long_wait_group(dist.group.WORLD)


@cache
def _long_wait_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Creates the gloo group that goes with a world group, once. Collective."""
    return long_wait_group()


def long_wait_group() -> dist.ProcessGroup:
    """Creates a gloo group of all ranks in which they may wait for hours, as for a checkpoint on a slow disk. Collective."""
    return dist.new_group(backend="gloo", timeout=_LONG_TIMEOUT)


def lightning_strategy(trainer: TrainerConfig, ranks: Ranks) -> tuple[Strategy, ClusterEnvironment]:
    """Returns Lightning's strategy and environment for these ranks."""
    from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

    class Sharded(ModelParallelStrategy):
        def model_to_device(self) -> None:
            """Moves nothing: `configure_model` has put every weight where it belongs, with CPU offload in host memory."""

    class Replicated(DDPStrategy):
        def teardown(self) -> None:
            """Moves nothing, since the export follows; Lightning would move weights and optimizer states to the CPU."""

    class Single(SingleDeviceStrategy):
        def teardown(self) -> None:
            """As `Replicated.teardown`."""

    # Given explicitly: Lightning would take the variables of a Slurm job for its own.
    environment: ClusterEnvironment = TorchElasticEnvironment() if torchrun.is_active() else LightningEnvironment()
    if trainer.strategy == "fsdp":
        return Sharded(ranks.size, 1), environment
    if trainer.strategy == "ddp":
        return Replicated(gradient_as_bucket_view=True, broadcast_buffers=False), environment
    return Single(compute_device(trainer, ranks)), environment


def compute_device(trainer: TrainerConfig, ranks: Ranks) -> torch.device:
    """Returns the device that a rank computes on."""
    return torch.device("cuda", ranks.local_rank) if trainer.accelerator == "cuda" else torch.device("cpu")
