"""Attention in which each document of a packed row attends to itself alone.

On GPUs it is torch's varlen attention, one flash kernel for the whole row; elsewhere, and where it does not agree with SDPA,
causal SDPA document by document, or `block_attention` in bf16 on the CPU. (varlen has no backward pass there.)

transformers isolates packed documents with a mask of tokens × tokens: at 16 documents of 80 tokens it makes a training step of
the miniature 2.4 times as long, and at 16,384 tokens the mask alone is 256 MiB. It also rules out flash kernels, which take no
mask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dgr_lightning.console import say
from dgr_lightning.models.block_attention import block_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "dgr_documents"
# In bf16 on the CPU, up to this length the backward pass of SDPA takes three times as long as in fp32; beyond it, plain matrix
# products are faster than both.
_SHORT = 160
# The relative difference allowed between varlen attention and SDPA; both round to bf16, whose eps is 0.8 %.
_TOLERANCE = 0.02
_FLASH_DEVICES, _FLASH_TYPES = ("cuda",), (torch.bfloat16, torch.float16)


class Documents:
    """The boundaries of the documents in a packed row.

    A plain class, because compiled layers pass it on as it is. The compiler would specialise on the values of a list or a
    dataclass, recompile for every row, and give up.

    Attributes:
        lengths: tokens of each document, T in all.
        ends: 0 and the end of each document, int32, on the row's device; None: no varlen attention.
    """

    def __init__(self, lengths: list[int], ends: Tensor | None = None) -> None:
        """Takes both."""
        self.lengths, self.ends = lengths, ends


@torch.compiler.disable(recursive=True)  # its loop over documents differs from row to row
def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    documents: Documents | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attends document by document; transformers calls it in every layer, with the `documents` given to the model's forward.

    Args:
        module: the attention layer.
        query: [rows, heads, T, size]; several rows share their boundaries, and varlen attention takes a single one.
        key: [rows, key-value heads, T, size].
        value: [rows, key-value heads, T, size].
        attention_mask: not used; transformers makes none for an attention registered from outside.
        dropout: probability.
        scaling: of the products; None is 1/√size.
        documents: of the row; None: the row is one document.
        unused: further arguments of every attention in transformers.

    Returns:
        The attended values, [rows, T, heads, size], and no weights.
    """
    if documents is None:
        documents = Documents([query.shape[2]])
    lengths, ends = documents.lengths, documents.ends
    if ends is not None and len(lengths) > 1 and not dropout and _has_varlen(query, key, value):
        return varlen_attention(query, key, value, ends, max(lengths), scaling), None
    causal = partial(
        scaled_dot_product_attention,
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if value.device.type == "cpu" and value.dtype == torch.bfloat16:
            if value.shape[2] <= _SHORT:
                with torch.autocast("cpu", enabled=False):
                    return causal(query.float(), key.float(), value.float()).bfloat16()
            if dropout == 0:
                return block_attention(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
        return causal(query, key, value)

    separate = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    return torch.cat([attend(*document) for document in separate], dim=2).transpose(1, 2), None


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scaling: float | None = None
) -> Tensor:
    """Returns the attended values of `document_attention`, [1, T, heads, size], by one call of torch's varlen attention.

    Args:
        query: [1, heads, T, size], in any float type.
        key: [1, key-value heads, T, size], in any float type.
        value: [1, key-value heads, T, size], in a type that flash kernels take.
        ends: 0 and the end of each document, int32.
        longest: tokens of the longest document.
        scaling: of the products; None is 1/√size.
    """
    from torch.nn.attention.varlen import varlen_attn

    # Under autocast, which does not cover this function, rotary embeddings leave queries and keys in fp32.
    queries, keys, values = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    options, takes_scale = _varlen_options(varlen_attn, grouped=query.shape[1] != key.shape[1])
    if takes_scale:
        options = options | {"scale": scaling}
    elif scaling is not None:
        queries = queries * (scaling * query.shape[3] ** 0.5)
    attended = varlen_attn(queries, keys, values, ends, ends, longest, longest, **options)
    assert isinstance(attended, Tensor)  # it returns a tuple only with return_aux
    return attended[None]


@cache
def _varlen_options(varlen_attn: Callable[..., Any], *, grouped: bool) -> tuple[dict[str, Any], bool]:
    """Returns the keywords by which this release's `varlen_attn` is causal, and whether it takes a `scale`.

    torch 2.10 has `is_causal` and no scale, 2.11 a scale and a window, 2.12 and later `enable_gqa` as well. Before that, groups
    of heads were left to the kernel, unchecked.

    Args:
        varlen_attn: the function.
        grouped: whether several query heads share those of keys and values.
    """
    names = signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in names else {"is_causal": True}
    return options | ({"enable_gqa": grouped} if "enable_gqa" in names else {}), "scale" in names


def _has_varlen(query: Tensor, key: Tensor, value: Tensor) -> bool:
    if value.device.type not in _FLASH_DEVICES or value.dtype not in _FLASH_TYPES:
        return False
    return varlen_is_sdpa(value.device, value.dtype, query.shape[3], query.shape[1] // key.shape[1])


@cache
def varlen_is_sdpa(device: torch.device, dtype: torch.dtype, size: int, groups: int) -> bool:
    """Whether varlen attention agrees with SDPA, tried on two documents; if it does not, prints why.

    Not every release of torch has it, and not every GPU has a kernel for every size of heads.

    Args:
        device: to try it on.
        dtype: of queries, keys and values.
        size: of a head.
        groups: query heads per key-value head.
    """
    noise = torch.Generator(device).manual_seed(0)
    lengths = (5, 130)
    # Independent of the model's modes, and hidden from hooks that count the tensors saved by its layers.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor),
    ):
        query, key, value = inputs = [
            torch.randn(1, heads, sum(lengths), size, generator=noise, device=device, dtype=dtype).requires_grad_()
            for heads in (2 * groups, 2, 2)
        ]
        ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        documents = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
        expected = [scaled_dot_product_attention(*one, is_causal=True, enable_gqa=groups > 1) for one in documents]
        try:
            outcomes = [torch.cat(expected, 2).transpose(1, 2), varlen_attention(query, key, value, ends, max(lengths))]
            pairs = zip(*([one, *torch.autograd.grad(one.float().square().sum(), inputs)] for one in outcomes), strict=True)
            difference = max(((found - sdpa).float().norm() / sdpa.float().norm()).item() for sdpa, found in pairs)
            why = f"it differs from SDPA by {difference:.1%}" if not difference < _TOLERANCE else None
        except torch.OutOfMemoryError:
            raise
        except (ImportError, TypeError, RuntimeError) as error:  # missing, another signature, no kernel
            why = f"{type(error).__name__}: {str(error).partition('. ')[0]}"
    if why is not None:
        say(f"[yellow]packed rows: varlen attention cannot be used here ({escape(why)}); SDPA runs document by document[/]")
    return why is None


def use_document_attention(model: PreTrainedModel) -> None:
    """Switches a model to attention document by document if all its layers have plain causal attention.

    Models with sliding windows, or with an attention of another kind, keep theirs.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, document_attention)
    settings = model.config.get_text_config().to_dict()
    # Some families state the type of every layer, others only the size of a window.
    kinds = settings.get("layer_types") or (["sliding_attention"] if settings.get("sliding_window") else [])
    if set(kinds) <= {"full_attention"} and settings.get("attn_logit_softcapping") is None:
        model.set_attn_implementation(NAME)
