"""Tensor parallelism: the matrices of a layer are split over several devices, which compute every row together.

The plan is the model's own (`base_model_tp_plan` of its config): attention heads and the inner width of the MLP are split, and
the partial results are summed, twice a layer (Megatron-LM, arXiv 1909.08053). Embeddings and output layer are gathered in full
when they compute. A device's part of a layer is sharded once more over the ranks that compute other rows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import layers, outline

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

# The mesh dimension of the devices that share a layer.
DIMENSION = "tensor"
_LAYER = "layers.*."
_COLUMNS, _ROWS, _NORM = "colwise", "rowwise", "replicated_with_grad_allreduce"
_HEADS = 2  # the dimension of heads in the input of a norm of queries or keys: [batch, tokens, heads, width]


def check_folder(folder: Path, ways: int, trust_remote_code: bool = False) -> None:
    """Checks by a model's config alone, without loading a weight, that its layers can be split over so many devices.

    Raises:
        UserError: it has no plan, an unknown one or one that does not fit, or a size that cannot be divided.
    """
    model = outline(folder, trust_remote_code)
    if model is not None:
        check_split(model, ways)


def check_split(model: PreTrainedModel, ways: int) -> None:
    """As `check_folder`, for a model that may be on the meta device."""
    key, name = f"trainer.tensor_parallel={ways}", type(model).__name__
    plan, config = _plan(model), model.config.get_text_config().to_dict()
    unknown = sorted(set(plan.values()) - {_COLUMNS, _ROWS, _NORM})
    why = "it has no plan for that" if not plan else f"its plan asks for {', '.join(unknown)}" if unknown else None
    if misfit := why or next((misfit for layer in layers(model) if (misfit := _misfit(layer, plan))), None):
        raise UserError(f"{key}: {name} cannot be split, {misfit}. Write trainer.tensor_parallel=1; fsdp shards any model.")
    heads = config["num_attention_heads"]
    numbers = {"attention heads": heads, "key and value heads": config.get("num_key_value_heads") or heads}
    for module, style in plan.items():
        matrix = layers(model)[0].get_submodule(module)
        if isinstance(matrix, nn.Linear):
            numbers[f"values of {module}"] = matrix.out_features if style == _COLUMNS else matrix.in_features
    for what, number in numbers.items():
        if number % ways:
            raise UserError(f"{key}: {name} has {number} {what}, which {ways} devices cannot share evenly.")


def _misfit(layer: nn.Module, plan: Mapping[str, str]) -> str | None:
    """Returns why a plan does not fit a layer: a matrix is missing, or the plan leaves out a weight beside a split one."""
    modules = dict(layer.named_modules())
    for name, style in plan.items():
        if name not in modules or (style != _NORM and not isinstance(modules[name], nn.Linear)):
            return f"its plan has {name}, which is no matrix of its layers"
    beside = tuple({f"{name.rpartition('.')[0]}." for name in plan})
    for name, _ in layer.named_parameters():
        if name.rpartition(".")[0] not in plan and name.startswith(beside):
            return f"its plan does not say what becomes of {name}"
    return None


def split(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Splits the layers of a model in place, so that every device keeps its part; nothing is sent on the meta device.

    Args:
        model: one that passes `check`.
        mesh: of the devices that share a layer.
    """
    styles: dict[str, type[ParallelStyle]] = {_COLUMNS: ColwiseParallel, _ROWS: RowwiseParallel}
    plan: dict[str, ParallelStyle] = {
        module: SequenceParallel(sequence_dim=_HEADS, use_local_output=True) if style == _NORM else styles[style]()
        for module, style in _plan(model).items()
    }
    for layer in layers(model):
        parallelize_module(layer, mesh, plan)
    # It warns that weights sharded twice are gathered in two steps; only probes and the export gather them in full.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def is_split(model: nn.Module) -> bool:
    """Whether the layers of a model are split."""
    shards = (weight for weight in model.parameters() if isinstance(weight, DTensor))
    return any(DIMENSION in (weight.device_mesh.mesh_dim_names or ()) for weight in shards)


def _plan(model: PreTrainedModel) -> Mapping[str, str]:
    """Returns the plan for a layer: the style of each module. Modules outside the layers are sharded, not split."""
    plan = model.config.get_text_config().base_model_tp_plan or {}
    return {name.removeprefix(_LAYER): style for name, style in plan.items() if name.startswith(_LAYER)}
