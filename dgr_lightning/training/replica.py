"""Whether a device holds the whole model beside its adapters, so that these alone are exchanged between devices (DDP).

Under FSDP the frozen weights, most of the bytes, would be gathered twice a step for the sake of adapters that are a hundredth
of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dgr_lightning.config import TuningConfig
from dgr_lightning.training.adapters import targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS_SHARE = 0.5
"""Of a device's memory, what weights may take there: the rest is for activations, which are the same under FSDP."""

# Bytes of a frozen value in 4-bit NormalFloat with its share of the blocks' scales, which are quantized, too.
_PACKED = 0.52
# Bytes of a trained value: itself, its gradient and the two states of AdamW, all in fp32.
_TRAINED = 16


def replica_bytes(model: PreTrainedModel, tuning: TuningConfig, precision: str) -> int:
    """Returns the bytes that frozen weights, adapters and their optimizer take where nothing is sharded.

    Args:
        model: on the meta device, without adapters (`weights.outline`).
        tuning: `lora` or `qlora`.
        precision: type of the computation, which frozen weights have, `bf16` or `fp32`.

    Raises:
        UserError: as `adapters.targets`.
    """
    head = model.get_output_embeddings()
    packed = 0
    if tuning.method == "qlora":
        linear = (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)
        packed = sum(module.weight.numel() for module in linear)
    plain = sum(weight.numel() for weight in model.parameters()) - packed
    adapted = (model.get_submodule(name).get_parameter("weight") for name in targets(model, tuning))
    trained = sum(tuning.rank * sum(weight.shape) for weight in adapted)
    return int(_PACKED * packed + (2 if precision == "bf16" else 4) * plain + _TRAINED * trained)
