"""What a decoder layer keeps in memory, found by running the model's own code on tensors that have shapes but no values.

A few layers run forward and backward on torch's fake tensors, with adapters, autocast and all, and every storage that comes to
life is counted until it dies. So the figures are those of the layers as they are, of any family and version, and no table of
bytes a token has to follow them. It takes no memory and about a second.

Fake tensors of a GPU need a GPU, so these claim to lie on the CPU; autocast treats decoder layers alike on both. Attention is
the one part that differs: where the plan is for a GPU, `_FlashAttention` stands in for it. Workspace inside a kernel does not
show; for its size see `memory.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dgr_lightning.models import attention
from dgr_lightning.models.quiet_imports import quiet_imports
from dgr_lightning.models.weights import layers
from dgr_lightning.training.quantization import DTYPES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLASH_NAME = "dgr_documents_planned"
TRACED_LAYERS = 3
"""Of a model that is traced. The first has an input that may need no gradient; from the second to the third, all that the model
holds for a moment is the same, and what is more is what a layer keeps."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a forward and backward pass through decoder layers, for one row.

    Attributes:
        saved: what a layer keeps for its backward pass, its output included, without copies of weights.
        copies: bf16 copies of its weights that autocast makes.
        layer_input: its hidden states, which is all that a recomputed layer keeps.
        forward: the most that a layer needs while it computes, above what was there before it.
        backward: the same of its backward pass, the gradients of its weights included.
        around: kept outside of the layers: embedded tokens, rotary angles, the final norm.
        hidden_size: bytes of a number of the final hidden states.
    """

    saved: int
    copies: int
    layer_input: int
    forward: int
    backward: int
    around: int
    hidden_size: int


def trace(model: PreTrainedModel, documents: Sequence[int], *, on_gpu: bool, autocast: bool) -> Footprint:
    """Returns the footprint of a model's layers.

    Args:
        model: on the meta device, of `TRACED_LAYERS` layers, with its adapters if any, in the types of the computation; it is
            changed.
        documents: tokens of each document of the row, padding included.
        on_gpu: whether to count the attention that runs on a GPU.
        autocast: whether the layers run under autocast to bf16.

    Raises:
        Exception: any; the code of a model from outside may do what cannot be done without values.
    """
    _choose_attention(model, on_gpu=on_gpu)
    with FakeTensorMode(), _Storages() as storages:
        _give_shapes(model)
        storages.know_weights(model)
        return _run(model, layers(model), documents, storages, autocast=autocast)


def planned_four_bit(model: PreTrainedModel, precision: str) -> None:
    """Replaces the matrices of a model's layers, on the meta device, by stand-ins of bitsandbytes' 4-bit ones, in place.

    peft then wraps them as it wraps those.
    """
    kind = _four_bit_class()
    for layer in layers(model):
        for module in list(layer.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    packed = kind(
                        child.in_features,
                        child.out_features,
                        bias=child.bias is not None,
                        compute_dtype=DTYPES[precision],
                        quant_type="nf4",
                        device="meta",
                    )
                    packed.weight.requires_grad_(False)
                    setattr(module, name, packed)
    setattr(model, "is_loaded_in_4bit", True)  # noqa: B010 (mypy): what peft looks at


class _Storages(TorchDispatchMode):
    """Counts the bytes of the storages that are alive.

    Attributes:
        alive: of all of them.
        copies: of those that are casts of weights.
        peak: the most since `begin`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.copies = self.peak = 0
        self._known: set[int] = set()
        self._weights: set[int] = set()

    def know_weights(self, model: nn.Module) -> None:
        """Leaves a model's weights and buffers out of the count."""
        for tensor in (*model.parameters(), *model.buffers()):
            self._weights.add(_storage_id(tensor))
        self._known |= self._weights
        self.alive = self.copies = self.peak = 0

    def begin(self) -> int:
        """Starts a new peak; returns what is alive."""
        self.peak = self.alive
        return self.alive

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        is_copy = function is torch.ops.aten._to_copy.default and _storage_id(args[0]) in self._weights
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor, is_copy=is_copy)
        return out

    def _count(self, tensor: Tensor, *, is_copy: bool) -> None:
        storage = tensor.untyped_storage()
        number = _storage_id(tensor)
        if number in self._known:
            return
        size = storage.nbytes()
        self._known.add(number)
        self.alive += size
        self.copies += size if is_copy else 0
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, number, size, is_copy)

    def _forget(self, number: int, size: int, is_copy: bool) -> None:
        self._known.discard(number)
        self.alive -= size
        self.copies -= size if is_copy else 0


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _choose_attention(model: PreTrainedModel, *, on_gpu: bool) -> None:
    from transformers import AttentionInterface

    attention.use_document_attention(model)
    if on_gpu and model.config.get_text_config()._attn_implementation == attention.NAME:
        AttentionInterface.register(FLASH_NAME, _flash_attention)
        model.set_attn_implementation(FLASH_NAME)


def _give_shapes(model: nn.Module) -> None:
    """Replaces the tensors of a model by fake ones on the CPU; tied ones stay tied."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return made[id(tensor)]

    weights: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in weights:
                    weights[id(weight)] = nn.Parameter(fake(weight), requires_grad=weight.requires_grad)
                module._parameters[name] = weights[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


def _run(
    model: PreTrainedModel, decoder: list[nn.Module], documents: Sequence[int], storages: _Storages, *, autocast: bool
) -> Footprint:
    passes = _Passes(storages)
    for layer in decoder:
        layer.register_forward_pre_hook(passes.mark)
        layer.register_forward_hook(passes.after_layer)
    ids, positions = torch.zeros(1, sum(documents), dtype=torch.long), torch.arange(sum(documents))[None]
    first = storages.begin()
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model.base_model(
            input_ids=ids, position_ids=positions, documents=attention.Documents(list(documents)), use_cache=False
        ).last_hidden_state
    # The loss takes the targets out of the hidden states, which are then freed; their place in the graph stays.
    edge, gradient = torch.autograd.graph.get_gradient_edge(hidden), torch.empty_like(hidden)
    hidden_size = hidden.element_size()
    del hidden
    passes.mark()
    embedded, start, end, done = passes.marks
    torch.autograd.backward((edge,), (gradient,))
    # The gradients of the layers' outputs are there in reverse order: the third layer's, then what it has passed on.
    _, after, before, *_ = passes.marks[3:]
    copies = end.copies - start.copies
    kept = end.alive - start.alive
    around = embedded.alive - first + done.alive - end.alive - kept - gradient.numel() * hidden_size
    return Footprint(
        saved=kept - copies,
        copies=copies,
        layer_input=passes.layer_input,
        forward=end.peak - start.alive,
        backward=before.peak - after.alive,
        around=around,
        hidden_size=hidden_size,
    )


@dataclass(frozen=True)
class _Mark:
    """What is alive at one moment, and the most since the one before."""

    peak: int
    alive: int
    copies: int


class _Passes:
    """Marks the moments between layers, forward and backward."""

    def __init__(self, storages: _Storages) -> None:
        self._storages = storages
        self.marks: list[_Mark] = []
        self.layer_input = 0

    def mark(self, *_: Any) -> None:
        storages = self._storages
        self.marks.append(_Mark(storages.peak, storages.alive, storages.copies))
        storages.begin()

    def after_layer(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self.layer_input = hidden.numel() * hidden.element_size()
        if hidden.requires_grad:
            hidden.register_hook(self.mark)


class _FlashAttention(torch.autograd.Function):
    """What torch's varlen attention keeps and needs on a GPU, in sizes; nothing is computed.

    `_varlen_attn` saves queries, keys, values, the output and the log-sum-exp of every query and head in fp32; its backward
    pass allocates their gradients, a sum of fp32 for those of the queries, and, where heads share keys, gradients of keys and
    values for every head (flash-attention 2, `mha_varlen_bwd`).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, sums = ctx.saved_tensors
        gradient = torch.empty_like(query)
        summed, products = query.new_empty(query.shape, dtype=torch.float32), torch.empty_like(sums)
        if query.shape == key.shape:
            del summed, products
            return gradient, torch.empty_like(key), torch.empty_like(value)
        every_key, every_value = torch.empty_like(query), torch.empty_like(query)
        pair = torch.empty_like(key), torch.empty_like(value)
        del every_key, every_value, summed, products
        return gradient, *pair


def _flash_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    """As `attention.varlen_attention`: queries and keys take the type of the values."""
    queries, keys, values = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    attended: Tensor = _FlashAttention.apply(queries, keys, values)
    return attended[None], None


@cache
def _four_bit_class() -> Any:
    """Returns a class of bitsandbytes' 4-bit matrix that computes in sizes alone, as `MatMul4Bit` does: weights are
    dequantised for every product, forward and backward, and nothing is saved."""
    with quiet_imports():
        from bitsandbytes.nn import Linear4bit

    class Planned4bit(Linear4bit):
        def forward(self, x: Tensor) -> Tensor:
            inputs = x.to(self.compute_dtype)
            product: Tensor = _FourBitProduct.apply(inputs, self.out_features)
            return product.to(x.dtype)

    return Planned4bit


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, num_out: int) -> Tensor:
        ctx.num_out, ctx.num_in = num_out, inputs.shape[-1]
        weight = inputs.new_empty(num_out, ctx.num_in)
        return nn.functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.num_out, ctx.num_in), None
