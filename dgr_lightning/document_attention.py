"""Attention in which each document of a packed row attends to itself alone: causal SDPA, document by document.

transformers isolates packed documents with a mask of the whole row, squared: at 16 documents of 80 tokens a training step of
the miniature takes 2.4 times as long with it as with this, and at 16,384 tokens the mask alone is 256 MiB. It also keeps a GPU
from its flash kernels, which take no mask. torch's varlen attention does the same in one call, but has no backward on the CPU.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "dgr_documents"
# On the CPU, the backward pass of SDPA in bf16 takes five times that in fp32 at 80 tokens; from about 300 on it is the faster.
_SHORT = 300


@torch.compiler.disable(recursive=True)  # its loop is over documents, of which every row has others
def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    document_lengths: list[int] | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer; the model's forward hands `document_lengths` through to it.

    Args:
        module: the attention layer.
        query: [1, heads, T, size].
        key: [1, key-value heads, T, size].
        value: [1, key-value heads, T, size].
        attention_mask: not used; transformers makes none for an attention that it does not know.
        dropout: probability.
        scaling: of the products; None is 1/√size.
        document_lengths: tokens of each document in the row, T in all; None: the row is one document.
        unused: what transformers tells every attention.

    Returns:
        The attended values, [1, T, heads, size], and no weights.
    """
    lengths = [query.shape[2]] if document_lengths is None else document_lengths
    causal = partial(
        scaled_dot_product_attention,
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if value.device.type == "cpu" and value.dtype == torch.bfloat16 and value.shape[2] < _SHORT:
            with torch.autocast("cpu", enabled=False):
                return causal(query.float(), key.float(), value.float()).bfloat16()
        return causal(query, key, value)

    documents = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    return torch.cat([attend(*document) for document in documents], dim=2).transpose(1, 2), None


def use_document_attention(model: PreTrainedModel) -> None:
    """Has a model attend document by document, where every layer of it has plain causal attention to all that came before.

    Others (sliding windows, attention of their own) keep what they have.
    """
    AttentionInterface.register(NAME, document_attention)
    settings = model.config.get_text_config().to_dict()
    # Some families say it layer by layer, others by the size of the window alone.
    kinds = settings.get("layer_types") or (["sliding_attention"] if settings.get("sliding_window") else [])
    if set(kinds) <= {"full_attention"} and settings.get("attn_logit_softcapping") is None:
        model.set_attn_implementation(NAME)
