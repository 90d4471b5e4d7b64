"""LoRA adapters: where they are put, their first values, and their sum with the base model's weights.

LoRA (arXiv 2106.09685) learns the change of a matrix as a product of two thin ones, W + alpha / rank · B A. peft injects the
adapters into the model that transformers loaded, in place: its class, attributes and forward stay those that loss, probes and
generation know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dgr_lightning.config import LAYER_RANGE, TuningConfig
from dgr_lightning.distributed.fsdp import full_tensor
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.quiet_imports import quiet_imports
from dgr_lightning.models.weights import layers, load_model, outline

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"
_ADAPTER = "default"  # peft's name of the only one


@dataclass(frozen=True)
class Adapter:
    """The learned change of a matrix of [out, in], which becomes `weight + scale * up @ down`.

    Attributes:
        down: [rank, in], fp32 on the CPU.
        up: [out, rank], likewise.
        scale: alpha / rank.
    """

    down: Tensor
    up: Tensor
    scale: float


def check_adapters(folder: Path, tuning: TuningConfig, trust_remote_code: bool = False) -> None:
    """Checks by a model's config alone, without loading a weight, that it can take the adapters of a config.

    Raises:
        UserError: as `targets`.
    """
    model = outline(folder, trust_remote_code)
    if model is not None:
        targets(model, tuning)


def targets(model: PreTrainedModel, tuning: TuningConfig) -> list[str]:
    """Returns the names of the matrices that get an adapter: linear layers inside decoder layers, in the model's order.

    Raises:
        UserError: there is no such layer or module, or `tuning.rank` is not below the rows and columns of every matrix.
    """
    decoder = layers(model)
    if not decoder:
        raise UserError(
            f"tuning={tuning.method}: {type(model).__name__} does not say which modules are its layers. Write tuning=full."
        )
    prefixes = {module: name for name, module in model.named_modules()}
    inside = {
        f"{prefixes[decoder[number]]}.{name}": module
        for number in _layer_range(tuning.layers, len(decoder))
        for name, module in decoder[number].named_modules()
        if isinstance(module, nn.Linear)
    }
    found: set[str] = set()
    for wanted in tuning.target_modules:
        names = [name for name in inside if wanted == ALL_LINEAR or f".{name}".endswith(f".{wanted}")]
        if not names:
            kinds = dict.fromkeys(name.rpartition(".")[2] for name in inside)
            raise UserError(
                f"tuning.target_modules=[{','.join(tuning.target_modules)}]: no linear layer's name ends in {wanted!r} in the "
                f"chosen layers of {type(model).__name__}. They have: {', '.join(kinds)}; or write [{ALL_LINEAR}]."
            )
        found |= set(names)
    adapted = [name for name in inside if name in found]
    for name in adapted:
        narrow = min(inside[name].in_features, inside[name].out_features)
        if tuning.rank >= narrow:
            raise UserError(
                f"tuning.rank={tuning.rank}: {name} has {narrow} rows or columns, and an adapter of that rank is no smaller "
                f"than the matrix. Give a rank below {narrow}, name other tuning.target_modules, or take tuning=full."
            )
    return adapted


def _layer_range(layers: str | None, depth: int) -> range:
    """Returns the decoder layers that `tuning.layers` selects of `depth`; shares are rounded to at least one layer."""
    if layers is None:
        return range(depth)
    match = LAYER_RANGE.fullmatch(layers)
    if match is None:
        raise ValueError(f"tuning.layers={layers} should have been refused with the config")
    first, last, low, high = match.groups()
    if low is not None:
        start = min(round(float(low) / 100 * depth), depth - 1)
        return range(start, max(round(float(high) / 100 * depth), start + 1))
    if int(last) >= depth:
        raise UserError(f"tuning.layers={layers}: the model has {depth} decoder layers, 0-{depth - 1}.")
    return range(int(first), int(last) + 1)


def add_adapters(model: PreTrainedModel, tuning: TuningConfig) -> None:
    """Freezes a model and adds an fp32 adapter to each of its `targets`; `initialize` sets the values.

    Raises:
        UserError: as `targets`.
    """
    with quiet_imports():
        from peft import LoraConfig, inject_adapter_in_model

    shape = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,  # type: ignore[arg-type]  # a float; it is only divided by the rank
        lora_dropout=tuning.dropout,
        target_modules=targets(model, tuning),
    )
    inject_adapter_in_model(shape, model, _ADAPTER)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


@torch.no_grad()
def initialize(model: PreTrainedModel, seed: int) -> None:
    """Sets adapters to their first values: B to zero, so that nothing is added yet, A to uniform noise as in peft.

    The noise of a matrix depends on the seed and its name alone, not on other adapters, devices, ranks or earlier draws.

    Args:
        model: with adapters, sharded or not; not on the meta device.
        seed: of the run.
    """
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        values = torch.zeros(weight.shape)
        if ".lora_A." in name:
            noise = torch.Generator().manual_seed(int(content_hash(seed, name)[:8], 16))
            bound = 1 / math.sqrt(weight.shape[1])
            values.uniform_(-bound, bound, generator=noise)
        if isinstance(weight, DTensor):  # every rank has drawn all of it, so nothing is sent
            values = distribute_tensor(values.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        weight.copy_(values)


def has_adapters(model: nn.Module) -> bool:
    """Whether a model has adapters, and training changes these alone."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def collect(model: PreTrainedModel) -> dict[str, Adapter]:
    """Returns the adapters of a model, by the name of the matrix that each belongs to; empty if all weights are trained.

    Collective for a sharded model, whose shards are gathered.
    """
    with quiet_imports():
        from peft.tuners.lora import LoraLayer

    def values(factor: nn.Module) -> Tensor:
        return full_tensor(factor.get_parameter("weight").detach()).float().cpu()

    return {
        name: Adapter(values(module.lora_A[_ADAPTER]), values(module.lora_B[_ADAPTER]), module.scaling[_ADAPTER])
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


@torch.no_grad()
def merge(learned: Mapping[str, Adapter], base_folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Returns the base model with adapters added to its weights, on the CPU; sums are in fp32 and rounded once.

    Args:
        learned: from `collect`.
        base_folder: the base model, not quantized.
        dtype: type of the base model's stored weights; unless it is bf16, the result is fp32.
    """
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    # Its code has run already, when it was loaded for training.
    model = load_model(base_folder, precision, "cpu", trust_remote_code=True)
    for name, adapter in learned.items():
        weight = model.get_submodule(name).get_parameter("weight")
        weight.copy_(weight.float() + adapter.scale * adapter.up @ adapter.down)
    return model
