"""Layers whose matrices are dealt to several devices, which compute every row together.

The plan is the model's own (`base_model_tp_plan` of its config): the heads of attention and the inner width of the MLP are
dealt out, and what comes of the parts is added up, twice a layer (Megatron-LM, arXiv 1909.08053). Embeddings and output layer
are whole while they compute. What a device holds of a layer is sharded once more over the ranks that have other rows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

# The mesh dimension of the devices that share a layer.
DIMENSION = "tensor"
_LAYER = "layers.*."
_COLUMNS, _ROWS, _NORM = "colwise", "rowwise", "replicated_with_grad_allreduce"
_HEADS = 2  # where the heads are when a norm of queries or keys sees them: [batch, tokens, heads, width]


def check(model: PreTrainedModel, decoder: Sequence[nn.Module], ways: int) -> None:
    """Checks that a model's layers can be dealt to so many devices; without its weights.

    Args:
        model: may be on the meta device.
        decoder: its layers.
        ways: devices that share a layer.

    Raises:
        UserError: it has no plan, or one that is not known here, or a number that cannot be divided.
    """
    key, name = f"trainer.tensor_parallel={ways}", type(model).__name__
    plan = _plan(model)
    unknown = sorted(set(plan.values()) - {_COLUMNS, _ROWS, _NORM})
    if not plan or not decoder or unknown:
        why = f"its plan asks for {', '.join(unknown)}" if unknown else "it has no plan for that"
        raise UserError(f"{key}: {name} cannot be split, {why}. Write trainer.tensor_parallel=1; fsdp shards any model.")
    config = model.config.get_text_config()
    numbers = {"attention heads": config.num_attention_heads, "key and value heads": config.num_key_value_heads}
    for module, style in plan.items():
        matrix = decoder[0].get_submodule(module)
        if style != _NORM:
            assert isinstance(matrix, nn.Linear)
            numbers[f"values of {module}"] = matrix.out_features if style == _COLUMNS else matrix.in_features
    for what, number in numbers.items():
        if number % ways:
            raise UserError(f"{key}: {name} has {number} {what}, which {ways} devices cannot share evenly.")


def split(model: PreTrainedModel, decoder: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Leaves every device its part of the layers, in place; on the meta device nothing is sent.

    Args:
        model: one that `check` let pass.
        decoder: its layers.
        mesh: of the devices that share a layer.
    """
    styles: dict[str, type[ParallelStyle]] = {_COLUMNS: ColwiseParallel, _ROWS: RowwiseParallel}
    plan: dict[str, ParallelStyle] = {
        module: SequenceParallel(sequence_dim=_HEADS, use_local_output=True) if style == _NORM else styles[style]()
        for module, style in _plan(model).items()
    }
    for layer in decoder:
        parallelize_module(layer, mesh, plan)
    # It warns that weights split twice are gathered in two steps; whole ones are wanted for probes and the export alone.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def is_split(model: nn.Module) -> bool:
    """Whether `split` was called on a model."""
    shards = (weight for weight in model.parameters() if isinstance(weight, DTensor))
    return any(DIMENSION in (weight.device_mesh.mesh_dim_names or ()) for weight in shards)


def _plan(model: PreTrainedModel) -> Mapping[str, str]:
    """Returns the plan for a layer: what becomes of which module. What lies outside the layers is sharded, not split."""
    plan = model.config.get_text_config().base_model_tp_plan or {}
    return {name.removeprefix(_LAYER): style for name, style in plan.items() if name.startswith(_LAYER)}
