"""Which weights are trained: all of them, or adapters of low rank beside a frozen model.

Frozen weights have the type of the computation, to which autocast would cast fp32 ones at every use; adapters are fp32, as all
trained weights are. Only adapters change, so only they are in a checkpoint. The exported model is a plain one: the base model's
weights, read again from its folder, with the adapters added. After QLoRA too: adapters are not added to the 4-bit weights,
whose rounding would then stay in the model, its untouched matrices included, and count as a cost of tuning.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import TuningConfig
from dgr_lightning.errors import UserError
from dgr_lightning.models.folder import check_unquantised
from dgr_lightning.models.weights import empty_model, load_model
from dgr_lightning.training import adapters, quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(
    folder: Path, tuning: TuningConfig, precision: str, device: str, seed: int, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Loads a model for training: trained weights require gradients and are fp32, frozen ones have the computation's type.

    Args:
        folder: the base model.
        tuning: which weights are trained.
        precision: type of the computation, `bf16` or `fp32`.
        device: cpu or cuda.
        seed: of the adapters' first values.
        trust_remote_code: as in `load_model`.

    Raises:
        UserError: as `load_model` and `adapters.targets`.
    """
    check_unquantised(folder)
    if tuning.method == "full":
        return load_model(folder, "master", device, trust_remote_code)
    config = quantization.four_bit(tuning.quant_storage, precision) if tuning.method == "qlora" else None
    model = load_model(folder, precision, device, trust_remote_code, config)
    if config is not None and device == "cpu":
        quantization.make_safe_on_cpu(model)
    adapters.add_adapters(model, tuning)
    adapters.initialize(model, seed)
    return model


def empty(folder: Path, tuning: TuningConfig, precision: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """Returns the model that `load` returns, without values on the meta device; 4-bit weights are left unquantized."""
    check_unquantised(folder)
    if tuning.method == "full":
        return empty_model(folder, trust_remote_code)
    model = empty_model(folder, trust_remote_code, quantization.DTYPES[precision])
    adapters.add_adapters(model, tuning)
    return model


def count_weights(folder: Path, tuning: TuningConfig, trust_remote_code: bool = False) -> tuple[int, int] | None:
    """Returns how many weights are trained, and how many the model has without adapters, by its config alone.

    None if transformers cannot make a model of it; the reason is in the message of `load`.
    """
    try:
        model = empty(folder, tuning, "fp32", trust_remote_code)
    except UserError:
        return None
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    every = sum(weight.numel() for weight in model.parameters())
    return trained, every if tuning.method == "full" else every - trained
