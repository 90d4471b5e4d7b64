"""Whether a probe fits beside a training: known before the first step, so that no probe ends a run.

A probe needs, beside what the training holds, the whole weights in the type that decoding computes in (gathered from all
shards, or the copies that autocast makes), the keys and values of the outputs, and the activations of a prefill.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor

from dgr_lightning.distributed.fsdp import bytes_to_gather
from dgr_lightning.engines.transformers.decoding import PREFILL_TOKENS
from dgr_lightning.models.attention_shape import AttentionShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.training.optimizer import OptimizerSpec

# A probe whose batch has to be cut into more pieces than this takes too long to be worth it.
_MOST_BATCHES = 4


@dataclass(frozen=True)
class ProbeSize:
    """What a rank decodes in a probe.

    Attributes:
        rows: its problems that are decoded together.
        longest_prompt: tokens of the longest prompt.
        max_new_tokens: tokens an output may take.
    """

    rows: int
    longest_prompt: int
    max_new_tokens: int


def needed_bytes(model: PreTrainedModel, gathered_in: str, dtype: torch.dtype, size: ProbeSize) -> tuple[int, int]:
    """Returns what a probe needs on a device: bytes of weights, and of outputs (keys, values, activations, logits).

    Args:
        model: in training, sharded or not.
        gathered_in: type in which sharded weights are gathered, `bf16` or `fp32`.
        dtype: that decoding computes in.
        size: of the probe. A cache for a quarter of the rows is enough, since decoding takes as many as fit.
    """
    weights = bytes_to_gather(model, gathered_in)
    if not weights and dtype == torch.bfloat16:  # copies that autocast makes of what it computes with
        weights = 2 * sum(weight.numel() for weight in model.parameters() if weight.dtype == torch.float32)
    settings = model.config.get_text_config()
    cached = AttentionShape.of(settings).cached_numbers
    rows = ceil(size.rows / _MOST_BATCHES)
    tokens = min(size.longest_prompt + size.max_new_tokens, settings.max_position_embeddings)
    prefill = min(PREFILL_TOKENS[model.device.type], rows * size.longest_prompt)
    # A layer's activations: about four of the hidden size and three of the MLP's. Logits: in both types, and sorted.
    wide = 4 * settings.hidden_size + 3 * (getattr(settings, "intermediate_size", None) or 4 * settings.hidden_size)
    outputs = dtype.itemsize * (rows * tokens * cached + prefill * wide) + 16 * rows * settings.vocab_size
    return weights, outputs


def future_state_bytes(model: PreTrainedModel, optimizer: OptimizerSpec) -> int:
    """Returns the bytes that the optimizer's states will take on this device; they come with the first step.

    Args:
        model: in training: of a sharded one this rank's shards count, and with CPU offload none.
        optimizer: of the training. States that are paged make room by themselves.
    """
    if optimizer.is_paged:
        return 0
    trained = [weight for weight in model.parameters() if weight.requires_grad and weight.device.type != "cpu"]
    numbers = sum(weight.to_local().numel() if isinstance(weight, DTensor) else weight.numel() for weight in trained)
    return ceil(optimizer.state_bytes * numbers)
