"""Muon (https://kellerjordan.github.io/posts/muon/) and AdamW as one optimizer, on whole and on sharded weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dgr_lightning.distributed.fsdp import full_tensor

# As its author runs it, and the defaults of torch.optim.Muon.
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPSILON = 1e-7


class Muon(torch.optim.AdamW):
    """Muon for the matrices of hidden layers, AdamW for everything else, as one optimizer with one state.

    Muon (https://kellerjordan.github.io/posts/muon/) makes the singular values of a matrix's momentum nearly equal before it
    steps. A step then has the size of AdamW's (times 0.2 √(larger side), arXiv 2502.16982), so that `sft.lr` and
    `sft.weight_decay` mean what they mean there.

    The singular values are those of the full matrix. Where weights are sharded, every rank gathers one matrix at a time,
    computes the same update as all others, and keeps its shard: the result equals that of one device and takes the memory of
    one more matrix, but the arithmetic is not shared.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, dtype: torch.dtype) -> None:
        """Takes the weights in groups.

        Args:
            groups: each with `params`, `weight_decay` and `muon`: whether Muon updates its weights, which are all [m, n].
            lr: learning rate of both optimizers.
            dtype: of the orthogonalisation.
        """
        super().__init__(groups, lr=lr, fused=True)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Makes one step of both and returns the closure's result; the gradients of Muon's weights are None afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"] if group["muon"] else []:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["weight_decay"])
                    weight.grad = None  # AdamW's step skips weights without a gradient
        super().step()
        return loss

    def _update(self, weight: nn.Parameter, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # unused here; AdamW expects it in every state that it loads
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        direction = full_tensor(gradient.lerp(state["momentum"], MOMENTUM))
        if isinstance(weight, DTensor):
            direction = direction.to(weight.device_mesh.device_type)  # with CPU offload, weights lie in host memory
        update = orthogonal(direction, self._dtype).to(weight.dtype)
        if isinstance(weight, DTensor):
            parts = distribute_tensor(update, weight.device_mesh, weight.placements, src_data_rank=None)
            update = parts.to(weight.device)
        weight.mul_(1 - lr * weight_decay)
        weight.add_(update, alpha=-lr * 0.2 * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a matrix with the singular vectors of another and singular values around 1, by Newton-Schulz iteration.

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
