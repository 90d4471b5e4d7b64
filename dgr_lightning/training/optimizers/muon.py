"""`sft.optimizer=muon`: Muon for the matrices of the decoder layers, AdamW for all other weights; see `distributed/muon.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dgr_lightning.config import SftConfig
from dgr_lightning.errors import UserError
from dgr_lightning.training.optimizer import OptimizerSpec, parameter_groups

if TYPE_CHECKING:
    from torch.optim import Optimizer


def build(model: Any, sft: SftConfig, precision: str) -> Optimizer:
    """Returns the optimizer of a model's trained weights; it orthogonalises in the type of the computation.

    Raises:
        UserError: the model does not name its layers.
    """
    import torch

    from dgr_lightning.distributed.muon import Muon
    from dgr_lightning.models.weights import layers

    hidden = {id(weight) for layer in layers(model) for weight in layer.parameters() if weight.ndim == 2}
    if not hidden:
        raise UserError(
            f"sft.optimizer=muon: {type(model).__name__} does not say which modules are its layers. Write sft.optimizer=adamw."
        )
    matrices, vectors = parameter_groups(model, sft.weight_decay)
    inner = [weight for weight in matrices["params"] if id(weight) in hidden]
    outer = [weight for weight in matrices["params"] if id(weight) not in hidden]
    betas = tuple(sft.betas)
    groups = [
        matrices | {"params": inner, "muon": True},
        matrices | {"params": outer, "muon": False, "betas": betas},
        vectors | {"muon": False, "betas": betas},
    ]
    return Muon(groups, sft.lr, torch.bfloat16 if precision == "bf16" else torch.float32)


OPTIMIZER = OptimizerSpec(
    build,
    not_for_adapters="Muon orthogonalises the update of a whole matrix, and an adapter has only its two thin factors",
    stored_bytes=4,
    state_bytes=4.0,  # the momentum; AdamW's two states for all other weights
    outer_state_bytes=8.0,
    # `orthogonal` in bf16: its argument in fp32, the iterate before and after, and two squares that are no larger.
    step_bytes=12.0,
)
