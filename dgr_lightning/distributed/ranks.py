"""Several processes as one training: who is which rank, on which device, and Lightning's strategy for them."""

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

# Of a collective: on the way of a step, and where one rank works while the others wait.
_TIMEOUT, _PATIENCE = timedelta(minutes=30), timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is.

    Attributes:
        rank: of all processes, counted from 0.
        size: number of processes.
        local_rank: of those on this machine; the index of its device.
        tensor_parallel: neighbours that compute every row together.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    tensor_parallel: int = 1

    @classmethod
    def here(cls, tensor_parallel: int = 1) -> Ranks:
        """Reads what torch's elastic agent says in the environment; alone where it started nothing."""
        if not torchrun.is_active():
            return cls()
        rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank, size, local_rank, tensor_parallel)

    @property
    def data_rank(self) -> int:
        """Which of the `data_size` shares of the rows this process computes."""
        return self.rank // self.tensor_parallel

    @property
    def data_size(self) -> int:
        """Number of shares that the rows are dealt into."""
        return self.size // self.tensor_parallel

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Returns rank 0's value on every rank; any value that pickle takes. Collective."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=_talk())
        return values[0]

    def all_reduce(self, values: Tensor) -> Tensor:
        """Adds up a tensor over the shares of the rows, in place. Collective."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.tensor_parallel  # each share was counted by all who computed it
        return values

    def all_gather(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in their order, on every rank; any values that pickle takes. Collective."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=_talk())
        return values


def init_group(trainer: TrainerConfig, ranks: Ranks) -> None:
    """Has the ranks of a training find each other, before Lightning would; does nothing where they have, or there is one.

    In the corner of the agent's store that is this stage's own: the agent keeps its store for the next stage, and for the next
    attempt after a restart.
    """
    if trainer.strategy not in ("fsdp", "ddp") or dist.is_initialized():
        return
    cuda = trainer.accelerator == "cuda"
    dist.init_process_group(
        # Checkpoints are gathered, and values agreed on, over gloo while NCCL computes.
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=torchrun.stage_store(),
        rank=ranks.rank,
        world_size=ranks.size,
        device_id=compute_device(trainer, ranks) if cuda else None,
        timeout=_TIMEOUT,
    )


def destroy_group() -> None:
    """Ends all groups. A process that ends while anything still holds one may be aborted, and be taken for one that died."""
    _patient.cache_clear()
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _talk() -> dist.ProcessGroup:
    """Returns the group in which ranks wait for what one of them does alone: writing 140 GB, merging adapters."""
    assert dist.group.WORLD is not None
    return _patient(dist.group.WORLD)


@cache
def _patient(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Returns one for each group of all ranks that there ever is. Collective."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def lightning_strategy(trainer: TrainerConfig, ranks: Ranks) -> tuple[Strategy, ClusterEnvironment]:
    """Returns what Lightning needs to know of the ranks: its strategy and its environment."""
    from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

    class Sharded(ModelParallelStrategy):
        def model_to_device(self) -> None:
            """`configure_model` put everything in its place, on the CPU what is to stay there."""

    class Copied(DDPStrategy):
        def teardown(self) -> None:
            """What is exported next stays where it is; Lightning moves weights and optimizer states to the CPU."""

    class Alone(SingleDeviceStrategy):
        def teardown(self) -> None:
            """As `Copied`."""

    # Named, so that Lightning does not take a Slurm job's variables for its own.
    environment: ClusterEnvironment = TorchElasticEnvironment() if torchrun.is_active() else LightningEnvironment()
    if trainer.strategy == "fsdp":
        return Sharded(ranks.size, 1), environment
    if trainer.strategy == "ddp":
        return Copied(gradient_as_bucket_view=True, broadcast_buffers=False), environment
    return Alone(compute_device(trainer, ranks)), environment


def compute_device(trainer: TrainerConfig, ranks: Ranks) -> torch.device:
    """Returns the device that a rank computes on."""
    return torch.device("cuda", ranks.local_rank) if trainer.accelerator == "cuda" else torch.device("cpu")
