"""`sft.optimizer=adamw8bit-torchao`: torchao's AdamW with states in 8 bits, which can be sharded.

It compiles a kernel for every shape of weights at the first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgr_lightning.config import SftConfig
from dgr_lightning.training.optimizer import BYTES_OF_8_BIT_STATES, OptimizerSpec, parameter_groups

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def build(model: nn.Module, sft: SftConfig, precision: str) -> Optimizer:
    """Returns the optimizer of a model's trained weights."""
    from dgr_lightning.models.quiet_imports import quiet_imports

    with quiet_imports():
        from torchao.optim import AdamW8bit

    optimizer: Optimizer = AdamW8bit(parameter_groups(model, sft.weight_decay), lr=sft.lr, betas=tuple(sft.betas))
    return optimizer


OPTIMIZER = OptimizerSpec(build, package="torchao", state_bytes=BYTES_OF_8_BIT_STATES, stored_bytes=8)
