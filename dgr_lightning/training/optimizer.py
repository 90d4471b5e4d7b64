"""The optimizers that `sft.optimizer` chooses from, a file each in `optimizers/`, and the code that they share.

The command line reads a member's facts before torch is imported, so neither this file nor a member imports torch until an
optimizer is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dgr_lightning.config import SftConfig
from dgr_lightning.registry import Registry

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer: how it is built, and what it goes together with.

    Attributes:
        build: called with the model (sharded or not; weights without gradients are frozen), the recipe, of which `lr`, `betas`
            and `weight_decay` are read, and the type of the computation, `bf16` or `fp32`.
        package: the package beyond PyTorch that it needs; None if there is none.
        sharded_instead: the optimizer to write instead under FSDP; None if its own states can be sharded.
        not_for_adapters: why it cannot train adapters; None if it can.
        state_bytes: bytes of its states for a trained number, before any sharding.
        outer_state_bytes: the same for weights outside of the decoder layers; None: no other.
        step_bytes: what its step needs for a number of the largest matrix in a layer, above weights, gradients and states.
        is_paged: whether its states move to the machine's memory where the device's is full.
        stored_bytes: that its states take at least in a checkpoint, for a trained weight: 8-bit states of torchao are stored as
            fp32, those of bitsandbytes as they are.
    """

    build: Callable[[nn.Module, SftConfig, str], Optimizer]
    package: str | None = None
    sharded_instead: str | None = None
    not_for_adapters: str | None = None
    stored_bytes: float = 0
    state_bytes: float = 8.0
    outer_state_bytes: float | None = None
    step_bytes: float = 0.0
    is_paged: bool = False


OPTIMIZERS: Registry[OptimizerSpec] = Registry(
    "sft.optimizer",
    "dgr_lightning.training.optimizers",
    "OPTIMIZER",
    is_member=lambda found: isinstance(found, OptimizerSpec),
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns the weights that require a gradient in two groups: matrices, embeddings among them, decay; vectors do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]


# Two states of 8 bits, each with a scale of fp32 for 256 numbers (bitsandbytes and torchao alike).
BYTES_OF_8_BIT_STATES = 2 * (1 + 4 / 256)


def bitsandbytes_spec(name: str, sharded_instead: str, stored_bytes: float) -> OptimizerSpec:
    """Returns the spec of an optimizer of bitsandbytes, whose states cannot be sharded.

    Args:
        name: its class in `bitsandbytes.optim`.
        sharded_instead: as in `OptimizerSpec`.
        stored_bytes: likewise.
    """

    def build(model: nn.Module, sft: SftConfig, precision: str) -> Optimizer:
        from dgr_lightning.models.quiet_imports import quiet_imports

        with quiet_imports():
            from bitsandbytes import optim

        groups = parameter_groups(model, sft.weight_decay)
        optimizer: Optimizer = getattr(optim, name)(groups, lr=sft.lr, betas=tuple(sft.betas))
        return optimizer

    return OptimizerSpec(
        build,
        package="bitsandbytes",
        sharded_instead=sharded_instead,
        state_bytes=BYTES_OF_8_BIT_STATES if name.endswith("8bit") else 8.0,
        stored_bytes=stored_bytes,
        is_paged=name.startswith("Paged"),
    )


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of every group; a tensor is filled in place, since a compiled step reads that very tensor."""
    from torch import Tensor

    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
