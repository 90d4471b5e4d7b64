"""The floating-point operations of a training step, and the peak and memory of the device.

Model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) counts the operations that the mathematics needs:
recomputed activations and padding lower it. Unlike its usual form, the output layer is counted for target tokens alone, and
attention for the pairs of tokens within a document.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import nn

from dgr_lightning.distributed import device_table
from dgr_lightning.models.attention_shape import AttentionShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MEASURED_SIZE, _MEASURED_TIMES = 1024, 5


@dataclass(frozen=True)
class ModelFlops:
    """Floating-point operations of a forward and backward pass.

    Attributes:
        per_token: of all layers, for a token of a document.
        per_target: of the output layer, for a target token.
        per_pair: of the attention's products, for a pair of tokens of which one attends to the other.
    """

    per_token: float
    per_target: float
    per_pair: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelFlops:
        """Counts a model's: per weight two forward, two backward for activations, and two for its gradient if it is trained."""
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        last = sum(_products(head))
        body = sum(sum(_products(module)) for module in model.modules() if module not in (head, embeddings))
        shape = AttentionShape.of(model.config.get_text_config())
        # Two products of two operations, and twice as many backward.
        attention = 12 * shape.num_layers * shape.num_heads * shape.head_dim
        return cls(body, last, attention)

    def step(self, num_tokens: int, num_targets: int, num_pairs: int) -> float:
        """Returns the operations of a step on all ranks; the arguments are those of `packing.StepBatch`."""
        return self.per_token * num_tokens + self.per_target * num_targets + self.per_pair * num_pairs


def _products(module: nn.Module) -> Iterator[int]:
    """Yields the operations per token of each of a module's own weights; packed 4-bit ones count with their unpacked size."""
    for name, weight in module.named_parameters(recurse=False):
        size = weight.numel()
        if isinstance(module, nn.Linear) and name == "weight":
            size = module.in_features * module.out_features
        yield (6 if weight.requires_grad else 4) * size


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Returns a device's peak in FLOP/s: a GPU's from its data sheet, a CPU's as measured; None if unknown."""
    if device.type == "cpu":
        return _measured(torch.bfloat16 if precision == "bf16" else torch.float32)
    if precision != "bf16":
        return None
    known = device_table.find(torch.cuda.get_device_name(device))
    return known.bf16_flops if known else None


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the peak memory so far: on a GPU, what torch allocated; on the CPU, the resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    highest = re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="utf-8")) if status.exists() else None
    if highest:  # getrusage's figure includes the parent's memory at the fork
        return 1024 * int(highest[1])
    import resource  # Windows has no such module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measured(dtype: torch.dtype) -> float:
    one = torch.ones(_MEASURED_SIZE, _MEASURED_SIZE, dtype=dtype)
    seconds = []
    for _ in range(_MEASURED_TIMES):
        start = perf_counter()
        one @ one
        seconds.append(perf_counter() - start)
    return 2 * _MEASURED_SIZE**3 / min(seconds)
