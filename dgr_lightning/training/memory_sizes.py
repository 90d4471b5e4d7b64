"""The numbers of a model that its memory follows from, read off its outline: no weight is loaded.

`ModelOutline` makes the outline once for every way of tuning and every way of computing, and remembers what it traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dgr_lightning.config import TuningConfig
from dgr_lightning.models.weights import config_model, layers, load_config
from dgr_lightning.training import adapters, memory_trace
from dgr_lightning.training.memory_trace import Footprint
from dgr_lightning.training.quantization import DTYPES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Weights:
    """Numbers of weights of a part of a model.

    Attributes:
        trained: with a gradient and optimizer states.
        frozen: in the type of the computation.
        packed: frozen ones in 4 bits.
        largest: of its trained matrices, the largest.
    """

    trained: int = 0
    frozen: int = 0
    packed: int = 0
    largest: int = 0

    @property
    def all(self) -> int:
        """Trained and frozen."""
        return self.trained + self.frozen + self.packed

    def __add__(self, other: Weights) -> Weights:
        """Returns both parts together."""
        largest = max(self.largest, other.largest)
        return Weights(self.trained + other.trained, self.frozen + other.frozen, self.packed + other.packed, largest)


@dataclass(frozen=True)
class ModelSizes:
    """A model under one way of tuning.

    Attributes:
        layers: of each decoder layer.
        root: of everything else: embeddings, final norm, output layer.
        embeddings: numbers in the matrix of the embeddings.
        vocabulary: rows of the output layer.
        width: of the hidden states.
        tied: whether the output layer's weight is that of the embeddings.
        trains_root: whether embeddings and output layer are trained.
        fuses_head: whether output layer and loss are computed a chunk of tokens at a time (`training/loss.py`).
    """

    layers: tuple[Weights, ...]
    root: Weights
    embeddings: int
    vocabulary: int
    width: int
    tied: bool
    trains_root: bool
    fuses_head: bool

    @property
    def all(self) -> Weights:
        """The whole model."""
        return sum(self.layers, self.root)

    @property
    def first_trained(self) -> int:
        """The first layer with a trained weight; layers before it keep nothing where the embeddings are frozen."""
        if self.trains_root:
            return 0
        return next((index for index, layer in enumerate(self.layers) if layer.trained), len(self.layers))


class ModelOutline:
    """A model without weights, from its config.

    Sizes and footprints are made when they are first asked for.
    """

    def __init__(self, config: PreTrainedConfig, trust_remote_code: bool = False) -> None:
        """Takes the config of a causal language model."""
        self._config, self._code = config, trust_remote_code
        self._sizes: dict[Any, ModelSizes] = {}
        self._footprints: dict[Any, Footprint] = {}

    @classmethod
    def of_folder(cls, folder: Path, trust_remote_code: bool = False) -> ModelOutline:
        """Returns the outline of a folder's config.json.

        Raises:
            UserError: transformers cannot read it.
        """
        return cls(load_config(folder, trust_remote_code), trust_remote_code)

    def sizes(self, tuning: TuningConfig) -> ModelSizes:
        """Returns the numbers of the model's weights.

        Raises:
            UserError: the model cannot take the adapters.
        """
        key = _key(tuning)
        if key not in self._sizes:
            self._sizes[key] = _sizes(self._tuned(tuning, "fp32"), tuning)
        return self._sizes[key]

    def footprint(
        self, tuning: TuningConfig, compute: str, documents: Sequence[int], *, on_gpu: bool, ways: int = 1
    ) -> Footprint:
        """Returns what a layer keeps and needs for a row.

        Args:
            tuning: of the training.
            compute: `autocast`: under autocast to bf16; `bf16`: all weights gathered in bf16; `fp32`.
            documents: tokens of the row's documents, padding included.
            on_gpu: where it is trained.
            ways: devices that share a layer's matrices (tensor parallelism).
        """
        documents = (sum(documents),) if on_gpu else tuple(documents)  # flash attention keeps the same for any documents
        key = (_key(tuning), compute, documents, on_gpu, ways)
        if key not in self._footprints:
            # The layers that are traced have adapters, whichever layers of the model do.
            whole = replace(tuning, layers=None)
            model = self._tuned(whole, "fp32" if compute == "fp32" else "bf16", ways, memory_trace.TRACED_LAYERS)
            if compute == "bf16":
                nn.Module.to(model, torch.bfloat16)
            self._footprints[key] = memory_trace.trace(model, documents, on_gpu=on_gpu, autocast=compute == "autocast")
        return self._footprints[key]

    def _tuned(self, tuning: TuningConfig, precision: str, ways: int = 1, depth: int | None = None) -> PreTrainedModel:
        """Returns the model of `tuning.empty` with its 4-bit matrices, if any, on the meta device, of some depth."""
        config = deepcopy(self._config)
        if depth is not None:
            _set_depth(config.get_text_config(), depth)
        if ways > 1:
            _divide(config.get_text_config(), ways)
        if tuning.method == "full":
            return config_model(config, self._code)
        model = config_model(config, self._code, DTYPES[precision])
        if tuning.method == "qlora":
            memory_trace.planned_four_bit(model, precision)
        adapters.add_adapters(model, tuning)
        return model


def _key(tuning: TuningConfig) -> tuple[Any, ...]:
    if tuning.method == "full":
        return ("full",)
    return tuning.method, tuning.rank, tuning.dropout, tuple(tuning.target_modules), tuning.layers


def _set_depth(config: Any, depth: int) -> None:
    config.num_hidden_layers = depth
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = (list(kinds) * depth)[:depth]


def _divide(config: Any, ways: int) -> None:
    """Leaves a config with the heads and inner width of one of several devices that share its layers."""
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if getattr(config, name, None):
            setattr(config, name, max(1, getattr(config, name) // ways))


def _sizes(model: PreTrainedModel, tuning: TuningConfig) -> ModelSizes:
    decoder = layers(model)
    inside = {id(weight) for layer in decoder for weight in layer.parameters()}
    packs = tuning.method == "qlora"
    outside = [weight for weight in model.parameters() if id(weight) not in inside]
    embeddings = model.get_input_embeddings().get_parameter("weight")
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    return ModelSizes(
        layers=tuple(_count(layer.parameters(), packs=packs) for layer in decoder),
        root=_count(outside, packs=False),
        embeddings=embeddings.numel(),
        vocabulary=head.get_parameter("weight").shape[0],
        width=embeddings.shape[1],
        tied=head.get_parameter("weight") is embeddings,
        trains_root=embeddings.requires_grad,
        fuses_head=type(head) is nn.Linear and head.bias is None and not any(getattr(config, key, None) for key in _SCALED),
    )


# Keys of configs whose models scale or cap their logits (Cohere, Granite, Gemma): `TargetLoss` finds them by a forward pass.
_SCALED = ("logit_scale", "logits_scaling", "final_logit_softcapping")


def _count(weights: Any, *, packs: bool) -> Weights:
    trained = frozen = packed = largest = 0
    for weight in weights:
        if weight.requires_grad:
            trained += weight.numel()
            largest = max(largest, weight.numel()) if weight.ndim > 1 else largest
        elif packs and weight.ndim > 1:
            packed += weight.numel()
        else:
            frozen += weight.numel()
    return Weights(trained, frozen, packed, largest)
