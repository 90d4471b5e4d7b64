"""`sft.optimizer=paged-adamw8bit`: bitsandbytes' paged AdamW (arXiv 2305.14314) with states in 8 bits (arXiv 2110.02861).

On a CPU nothing is paged. Its states cannot be sharded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgr_lightning.config import SftConfig
from dgr_lightning.training.optimizer import OptimizerSpec, parameter_groups

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def build(model: nn.Module, sft: SftConfig, precision: str) -> Optimizer:
    """Returns the optimizer of a model's trained weights."""
    from dgr_lightning.models.quiet_imports import quiet_imports

    with quiet_imports():
        from bitsandbytes.optim import PagedAdamW8bit

    optimizer: Optimizer = PagedAdamW8bit(parameter_groups(model, sft.weight_decay), lr=sft.lr)
    return optimizer


OPTIMIZER = OptimizerSpec(build, package="bitsandbytes", sharded_instead="adamw8bit-torchao")
