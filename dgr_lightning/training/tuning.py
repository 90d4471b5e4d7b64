"""Which weights are trained: all of them, or adapters of low rank beside a frozen model.

LoRA (arXiv 2106.09685) learns what is added to a matrix as the product of two thin ones, W + alpha / rank · B A; QLoRA (arXiv
2305.14314) keeps the frozen W in 4-bit NormalFloat, with the scales of its blocks quantised once more. peft puts the adapters
into the model that transformers loaded, in place: its class, attributes and forward stay what loss, probes and generation know.

Frozen weights are in the type of the computation, which is what autocast would make of fp32 ones at every use; adapters are
fp32 as all trained weights are. Only adapters change, so only they need to be in a checkpoint. What is exported is a plain
model: the base's weights, read again from its folder, with the adapters added. After QLoRA too: not to the 4-bit weights, whose
rounding would then stay in the model, its untouched matrices included, and count as the price of tuning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dgr_lightning.config import LAYER_RANGE, TuningConfig
from dgr_lightning.distributed.fsdp import whole
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.folder import check_unquantised
from dgr_lightning.models.weights import empty_model, layers, load_model, outline

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "uint8": torch.uint8}
_ADAPTER = "default"  # peft's name for the only one


@dataclass(frozen=True)
class Adapter:
    """What training learned about one matrix of [out, in]: it becomes `weight + scale * up @ down`.

    Attributes:
        down: [rank, in], fp32 on the CPU.
        up: [out, rank], likewise.
        scale: alpha / rank.
    """

    down: Tensor
    up: Tensor
    scale: float


def load(
    folder: Path, tuning: TuningConfig, precision: str, device: str, seed: int, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Loads a model for training: what is trained requires gradients and is fp32, what is frozen has the computation's type.

    Args:
        folder: the base model.
        tuning: which weights are trained.
        precision: type of the computation, `bf16` or `fp32`.
        device: cpu or cuda.
        seed: of the adapters' first values.
        trust_remote_code: as in `load_model`.

    Raises:
        UserError: as `load_model`, or the model has no place for these adapters.
    """
    check_unquantised(folder)
    if tuning.method == "full":
        return load_model(folder, "master", device, trust_remote_code)
    quantization = _four_bit(tuning.quant_storage, precision) if tuning.method == "qlora" else None
    model = load_model(folder, precision, device, trust_remote_code, quantization)
    if quantization is not None and device == "cpu":
        _tame_on_the_cpu(model)
    add_adapters(model, tuning)
    initialise(model, seed)
    return model


def empty(folder: Path, tuning: TuningConfig, precision: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """Returns what `load` returns, 4-bit weights aside, on the meta device: without any values, those of adapters included."""
    check_unquantised(folder)
    if tuning.method == "full":
        return empty_model(folder, trust_remote_code)
    model = empty_model(folder, trust_remote_code, DTYPES[precision])
    add_adapters(model, tuning)
    return model


def check_model(folder: Path, tuning: TuningConfig, trust_remote_code: bool = False) -> None:
    """Checks that a model has a place for the adapters that are asked for, by its config alone, without loading a weight.

    Raises:
        UserError: it has not; the message names the override.
    """
    model = outline(folder, trust_remote_code)
    if model is not None:
        targets(model, tuning)


def targets(model: PreTrainedModel, tuning: TuningConfig) -> list[str]:
    """Returns the names of the matrices that get an adapter: linear layers inside decoder layers, in the model's order.

    Raises:
        UserError: there is no such layer or module, or `tuning.rank` is no less than a matrix has rows or columns.
    """
    decoder = layers(model)
    if not decoder:
        raise UserError(f"tuning={tuning.method}: {type(model).__name__} does not say what its layers are; take tuning=full.")
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
    """Returns which of `depth` decoder layers `tuning.layers` means; shares are rounded to whole layers, at least one."""
    if layers is None:
        return range(depth)
    match = LAYER_RANGE.fullmatch(layers)
    if match is None:
        raise ValueError(f"tuning.layers={layers} went through the door")
    first, last, low, high = match.groups()
    if low is not None:
        start = min(round(float(low) / 100 * depth), depth - 1)
        return range(start, max(round(float(high) / 100 * depth), start + 1))
    if int(last) >= depth:
        raise UserError(f"tuning.layers={layers}: the model has {depth} decoder layers, 0-{depth - 1}.")
    return range(int(first), int(last) + 1)


def add_adapters(model: PreTrainedModel, tuning: TuningConfig) -> None:
    """Freezes a model and puts an fp32 adapter beside each of the `targets`; the values are `initialise`'s affair.

    Raises:
        UserError: as `targets`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    shape = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,  # type: ignore[arg-type]  # divided by the rank, nothing else
        lora_dropout=tuning.dropout,
        target_modules=targets(model, tuning),
    )
    inject_adapter_in_model(shape, model, _ADAPTER)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


@torch.no_grad()
def initialise(model: PreTrainedModel, seed: int) -> None:
    """Sets adapters to their first values: B to zero, so that nothing is added yet, A to uniform noise as in peft.

    The noise of a matrix follows from the seed and its name: other adapters, devices, ranks and whatever was drawn before have
    no say in it.

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
        if isinstance(weight, DTensor):  # every rank has drawn all of it: nothing is sent
            values = distribute_tensor(values.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
        weight.copy_(values)


def has_adapters(model: nn.Module) -> bool:
    """Whether adapters are what training changes in a model."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def adapters(model: PreTrainedModel) -> dict[str, Adapter]:
    """Returns the adapters of a model, by the name of the matrix that each belongs to; empty where all weights are trained.

    Of a sharded model every rank has to ask: the parts are gathered.
    """
    from peft.tuners.lora import LoraLayer

    def values(factor: nn.Module) -> Tensor:
        return whole(factor.get_parameter("weight").detach()).float().cpu()

    return {
        name: Adapter(values(module.lora_A[_ADAPTER]), values(module.lora_B[_ADAPTER]), module.scaling[_ADAPTER])
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


@torch.no_grad()
def merged(learned: Mapping[str, Adapter], base_folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Returns the base model with adapters added to its weights, on the CPU.

    The sum is made in fp32 and rounded once.

    Args:
        learned: what `adapters` returned.
        base_folder: the base model, not quantised.
        dtype: type that the base stores its weights in; bf16, or the result is fp32.
    """
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    model = load_model(base_folder, precision, "cpu", trust_remote_code=True)  # its code ran when it was loaded for training
    for name, adapter in learned.items():
        weight = model.get_submodule(name).get_parameter("weight")
        weight.copy_(weight.float() + adapter.scale * adapter.up @ adapter.down)
    return model


def _four_bit(storage: str, precision: str) -> Any:
    """Returns QLoRA's way to store frozen matrices, for transformers.

    They are packed into the computation's own type by default: mixed precision of a sharded model casts weights of any other
    float type, and a cast destroys what is packed.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[precision],
        bnb_4bit_quant_storage=DTYPES[precision if storage == "auto" else storage],
    )


def _tame_on_the_cpu(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes 0.50 from two things that it does to 4-bit matrices on a CPU.

    At their first use outside training it repacks them for AVX512, which fails for narrow ones and is not undone for sharding.
    And it takes the scales of wrong blocks where a row is no whole number of blocks: an error of 18 to 33 % of the mean weight
    instead of 9 % (matrices of 64 × 32, 64 × 96 and 48 × 32).

    Raises:
        UserError: the model has such rows.
    """
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            weight: Any = module.weight
            block = weight.blocksize
            if module.in_features % block:
                raise UserError(
                    f"tuning=qlora on a CPU: {name} has rows of {module.in_features} values, and bitsandbytes reads 4-bit rows "
                    f"wrongly there unless they are a multiple of {block}. Take tuning=lora, or trainer.accelerator=cuda."
                )
