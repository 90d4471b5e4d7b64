"""The optimizers of `sft.optimizer`: AdamW in 32 and 8 bits, and Muon.

`adamw` is PyTorch's, fused. `adamw8bit` (arXiv 2110.02861), `paged-adamw` and `paged-adamw8bit` (arXiv 2305.14314: states move
to the host's memory when the GPU's runs out; on a CPU there is nothing to page) are bitsandbytes', whose states cannot be
sharded. `adamw8bit-torchao` can; it compiles a kernel for every shape of weights at the first step. `muon` is below.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dgr_lightning.config import OPTIMIZERS, SftConfig
from dgr_lightning.distributed.fsdp import whole
from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import layers

# Muon as its author runs it, and as torch.optim.Muon does by default.
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPSILON = 1e-7


def build(model: Any, sft: SftConfig, precision: str) -> torch.optim.Optimizer:
    """Returns the optimizer of the weights that require a gradient; weight decay is for matrices, embeddings among them.

    Args:
        model: a causal language model of transformers, sharded or not.
        sft: `optimizer`, `lr` and `weight_decay` are read.
        precision: type of the computation; Muon orthogonalises in it.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if weight.ndim >= 2]
    rest = {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0}
    if sft.optimizer == "muon":
        hidden = {id(weight) for layer in layers(model) for weight in layer.parameters() if weight.ndim == 2}
        if not hidden:
            raise UserError(f"sft.optimizer=muon: {type(model).__name__} does not say what its layers are; take adamw.")
        inner = [weight for weight in matrices if id(weight) in hidden]
        outer = [weight for weight in matrices if id(weight) not in hidden]
        return Muon(
            [
                {"params": inner, "weight_decay": sft.weight_decay, "muon": True},
                {"params": outer, "weight_decay": sft.weight_decay, "muon": False},
                rest | {"muon": False},
            ],
            sft.lr,
            torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    groups = [{"params": matrices, "weight_decay": sft.weight_decay}, rest]
    package = OPTIMIZERS[sft.optimizer]
    if package is None:
        return torch.optim.AdamW(groups, lr=sft.lr, fused=True)
    name = {"paged-adamw": "PagedAdamW", "paged-adamw8bit": "PagedAdamW8bit"}.get(sft.optimizer, "AdamW8bit")
    optimizer: torch.optim.Optimizer = getattr(import_module(f"{package}.optim"), name)(groups, lr=sft.lr)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group; where it is a tensor, that tensor is what a compiled step reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


class Muon(torch.optim.AdamW):
    """Muon for the matrices of hidden layers, AdamW for everything else, as one optimizer with one state.

    Muon (https://kellerjordan.github.io/posts/muon/) makes the singular values of a matrix's momentum nearly equal before it
    steps. A step then has the size of AdamW's (times 0.2 √(larger side), arXiv 2502.16982), so that `sft.lr` and
    `sft.weight_decay` mean what they mean there.

    The singular values are the whole matrix's. Where weights are sharded, each rank gathers one matrix at a time, computes the
    same update as every other rank, and keeps its part: the result is one device's, the memory that of one matrix more, and
    the arithmetic of it is not shared.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, dtype: torch.dtype) -> None:
        """Takes groups of weights, each with `weight_decay` and `muon`: whether its weights, all of [m, n], are Muon's.

        Args:
            groups: of weights.
            lr: learning rate of both.
            dtype: of the orthogonalisation.
        """
        super().__init__(groups, lr=lr, fused=True)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Makes one step of both and returns what the closure does; the gradients of Muon's weights are used up by it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"] if group["muon"] else []:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["weight_decay"])
                    weight.grad = None  # AdamW's own step passes over weights that have none
        super().step()
        return loss

    def _update(self, weight: nn.Parameter, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # of no use but to AdamW, which looks for it in every state that it loads
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        direction = whole(gradient.lerp(state["momentum"], MOMENTUM))
        if isinstance(weight, DTensor):
            direction = direction.to(weight.device_mesh.device_type)  # weights may have been left in the machine's memory
        update = orthogonal(direction, self._dtype).to(weight.dtype)
        if isinstance(weight, DTensor):
            parts = distribute_tensor(update, weight.device_mesh, weight.placements, src_data_rank=None)
            update = parts.to(weight.device)
        weight.mul_(1 - lr * weight_decay)
        weight.add_(update, alpha=-lr * 0.2 * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a matrix with the singular vectors of another and singular values around 1, by Newton and Schulz's iteration.

    Args:
        matrix: [m, n].
        dtype: of the arithmetic and of the result.
    """
    first, second, third = COEFFICIENTS
    wide = matrix.to(dtype).T if matrix.shape[0] > matrix.shape[1] else matrix.to(dtype)
    wide = wide / wide.norm().clamp(min=EPSILON)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=second, alpha=third), wide, beta=first)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
