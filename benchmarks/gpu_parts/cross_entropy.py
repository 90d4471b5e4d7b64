"""Part 2: the loss that is fused with the output layer, at a 7B model's width and vocabulary: error, time, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_parts.part import Line, Setup, bytes_on_top, each, milliseconds, relative_difference
from dgr_lightning.training.flops import peak_flops
from dgr_lightning.training.linear_cross_entropy import linear_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """Target tokens, width and words; `checked` tokens are compared with fp32."""

    tokens: int = 8192
    width: int = 3584
    words: int = 152_064
    checked: int = 512


def prove(setup: Setup) -> Iterator[Line]:
    """Yields a line for ours and one for all logits at once, both in bf16 over an fp32 weight, as in training."""
    sizes = Sizes(256, 64, 1024, 128) if setup.dry else Sizes()
    noise = torch.Generator(setup.device).manual_seed(0)
    hidden = torch.randn(sizes.tokens, sizes.width, generator=noise, device=setup.device)
    weight = torch.randn(sizes.words, sizes.width, generator=noise, device=setup.device) * sizes.width**-0.5
    labels = torch.randint(sizes.words, (sizes.tokens,), generator=noise, device=setup.device)
    inputs = hidden.requires_grad_(), weight.requires_grad_(), labels
    ways = {"linear_cross_entropy": linear_cross_entropy, "all logits at once": _all_logits}
    yield from each({name: partial(_measure, setup, sizes, inputs, loss) for name, loss in ways.items()})


def _measure(setup: Setup, sizes: Sizes, inputs: tuple[Tensor, Tensor, Tensor], loss: Loss) -> Line:
    hidden, weight, labels = inputs

    def learn(hidden: Tensor, labels: Tensor, *, bf16: bool = True, way: Loss = loss) -> list[Tensor]:
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=bf16):
            total = way(hidden, weight, labels)
        return [total.detach(), *torch.autograd.grad(total, (hidden, weight))]

    few = hidden.detach()[: sizes.checked].requires_grad_(), labels[: sizes.checked]
    found, expected = learn(*few), learn(*few, bf16=False, way=_all_logits)
    names = ("loss", "hidden", "weight")
    differences = {
        name: relative_difference(*pair) for name, pair in zip(names, zip(found, expected, strict=True), strict=True)
    }
    del found, expected
    memory = bytes_on_top(lambda: learn(hidden, labels), setup.device)
    elapsed = milliseconds(lambda: learn(hidden, labels), 3)
    peak = None if setup.dry else peak_flops(setup.device, "bf16")
    products = 6 * sizes.tokens * sizes.width * sizes.words
    return {
        "tokens": sizes.tokens,
        "relative_difference_from_fp32": differences,
        "forward_and_backward_ms": elapsed,
        "bytes_on_top": memory,
        "share_of_peak": None if peak is None else products / (elapsed / 1000) / peak,
    }


def _all_logits(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy((hidden @ weight.t()).float(), labels, reduction="sum")
