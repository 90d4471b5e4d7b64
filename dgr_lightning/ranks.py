"""Several processes as one training: who is which rank, on which device, and Lightning's strategy for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from dgr_lightning import torchrun
from dgr_lightning.config import TrainerConfig

if TYPE_CHECKING:
    from lightning.pytorch.plugins.environments import ClusterEnvironment
    from lightning.pytorch.strategies import Strategy


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
        if not torchrun.is_there():
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

    def agree(self, value: Any) -> Any:
        """Returns rank 0's value on every rank; any value that pickle takes. Collective."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, values: Tensor) -> Tensor:
        """Adds up a tensor over the shares of the rows, in place. Collective."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.tensor_parallel  # each share was counted by all who computed it
        return values

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in their order, on every rank; any values that pickle takes. Collective."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def lightning_strategy(trainer: TrainerConfig, ranks: Ranks) -> tuple[Strategy | str, ClusterEnvironment]:
    """Returns what Lightning needs to know of the ranks: its strategy and its environment."""
    from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    # Named, so that Lightning does not take a Slurm job's variables for its own.
    environment: ClusterEnvironment = TorchElasticEnvironment() if torchrun.is_there() else LightningEnvironment()
    # Checkpoints are gathered over gloo while NCCL computes.
    backend = "cpu:gloo,cuda:nccl" if trainer.accelerator == "cuda" else "gloo"
    if trainer.strategy == "fsdp":

        class Sharded(ModelParallelStrategy):
            def model_to_device(self) -> None:
                """`configure_model` put everything in its place, on the CPU what is to stay there."""

        return Sharded(ranks.size, 1, process_group_backend=backend), environment
    if trainer.strategy == "ddp":
        return DDPStrategy(process_group_backend=backend, gradient_as_bucket_view=True, broadcast_buffers=False), environment
    return "auto", environment


def compute_device(trainer: TrainerConfig, ranks: Ranks) -> torch.device:
    """Returns the device that a rank computes on."""
    return torch.device("cuda", ranks.local_rank) if trainer.accelerator == "cuda" else torch.device("cpu")
