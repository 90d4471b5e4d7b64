"""Cross entropy on the target tokens of a packed row, in memory that does not grow with the vocabulary.

Hidden states are computed for the whole row, logits only where a token is to be learned, and of those no more at once than a
chunk of tokens has: `linear_cross_entropy` where the output layer is a matrix and nothing more. An output layer with anything
attached to it (a bias, an adapter, hooks) is called as it is, chunk by chunk, and once more in the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from dgr_lightning.distributed.fsdp import as_forward
from dgr_lightning.models.attention import Documents, use_document_attention
from dgr_lightning.training.linear_cross_entropy import linear_cross_entropy, max_logits_on
from dgr_lightning.training.packing import RowTensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TargetLoss:
    """The summed loss of packed rows under one model.

    Attributes:
        plain_head: whether the model's logits are its output layer's and nothing more. Some models scale or cap them
            (Granite, Cohere); theirs come from the model's own forward, in one piece.
        isolates: whether documents in a row cannot see each other. Where they can (an attention that ignores position ids),
            every document needs a row of its own.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Looks once, on a few tokens, at how the model makes its logits and what its documents see.

        Args:
            model: fp32 weights, in eval mode.
        """
        self._model = model
        use_document_attention(model)
        self._forward = as_forward(model, self._summed)
        self.isolates, self.plain_head = as_forward(model, self._look)()

    def _look(self) -> tuple[bool, bool]:
        """Returns `isolates` and `plain_head`."""
        model = self._model
        ids = torch.arange(9, device=model.device)[None] % model.config.get_text_config().vocab_size
        positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]], device=model.device)
        with torch.no_grad():
            packed = self._hidden(ids, positions, Documents([4, 5]))
            alone = self._hidden(ids[:, 4:], positions[:, 4:], Documents([5]))
            logits = model(input_ids=ids[:, 4:], use_cache=False).logits
            head = model.get_output_embeddings()(alone)
            apart = (packed[:, 4:] - alone).float().norm() / alone.float().norm()
        # Where another document is seen, they are apart by half or so; in bf16, by a few per cent where rows of another length
        # are summed in another order, layer after layer. Logits are the same products, of the same shapes, or they are not.
        isolates = bool(apart <= (1e-3 if packed.dtype == torch.float32 else 0.1))
        return isolates, bool((head - logits).abs().max() <= 1e-3 * logits.abs().max())

    def __call__(self, row: RowTensors, max_logits: int | None = None) -> Tensor:
        """Returns the sum of the cross entropy over the row's target tokens, a scalar in fp32.

        Args:
            row: a packed row, on the model's device.
            max_logits: how many logits may exist at once; None: what suits the device.
        """
        total: Tensor = self._forward(row, max_logits)
        return total

    def _summed(self, row: RowTensors, max_logits: int | None) -> Tensor:
        targets = row["targets"]
        labels = row["labels"][0, targets]
        documents = Documents(row["document_lengths"], row["document_ends"])
        if self.plain_head:
            hidden = self._hidden(row["input_ids"], row["position_ids"], documents)[0, targets]
            return summed_cross_entropy(self._model.get_output_embeddings(), hidden, labels, max_logits)
        logits = self._model(
            input_ids=row["input_ids"],
            position_ids=row["position_ids"],
            documents=documents,
            use_cache=False,
            logits_to_keep=targets,
        ).logits
        return cross_entropy(logits[0].float(), labels, reduction="sum")

    def _hidden(self, input_ids: Tensor, position_ids: Tensor, documents: Documents) -> Tensor:
        # A model that keeps its own attention isolates documents by their position ids, and only without a cache and without
        # an attention mask.
        hidden: Tensor = self._model.base_model(
            input_ids=input_ids,
            position_ids=position_ids,
            documents=documents,
            use_cache=False,
        ).last_hidden_state
        return hidden


def summed_cross_entropy(head: nn.Module, hidden: Tensor, labels: Tensor, max_logits: int | None = None) -> Tensor:
    """Returns the cross entropy of `head(hidden)` against `labels`, summed in fp32.

    Args:
        head: the output layer, [N, width] → [N, vocabulary].
        hidden: [N, width].
        labels: [N], int64.
        max_logits: N × vocabulary above this is computed in chunks; None: what suits the device.
    """
    weight = head.get_parameter("weight")
    if _is_matrix(head):
        return linear_cross_entropy(hidden, weight, labels, max_logits)
    chunk = max(1, (max_logits or max_logits_on(hidden.device)) // len(weight))
    if len(labels) <= chunk:
        return _chunk_loss(head, hidden, labels)
    losses = [
        checkpoint(_chunk_loss, head, some, wanted, use_reentrant=False, preserve_rng_state=False)
        for some, wanted in zip(hidden.split(chunk), labels.split(chunk), strict=True)
    ]
    return torch.stack(losses).sum()


def _is_matrix(head: nn.Module) -> bool:
    """Says whether calling an output layer is a product with its weight and nothing else."""
    # The very type: adapters, quantized layers and parametrizations are subclasses, or wrap it.
    return type(head) is nn.Linear and head.bias is None and not (head._forward_hooks or head._forward_pre_hooks)


def _chunk_loss(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(head(hidden).float(), labels, reduction="sum")
