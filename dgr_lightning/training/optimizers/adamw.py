"""`sft.optimizer=adamw`: PyTorch's fused AdamW, with states in fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgr_lightning.config import SftConfig
from dgr_lightning.training.optimizer import OptimizerSpec, parameter_groups

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def build(model: nn.Module, sft: SftConfig, precision: str) -> Optimizer:
    """Returns the optimizer of a model's trained weights."""
    from torch.optim import AdamW

    first, second = sft.betas
    return AdamW(parameter_groups(model, sft.weight_decay), lr=sft.lr, betas=(first, second), fused=True)


OPTIMIZER = OptimizerSpec(build, stored_bytes=8)
