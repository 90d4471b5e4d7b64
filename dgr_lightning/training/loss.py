"""Cross entropy on the target tokens of a packed row, in memory that does not grow with the vocabulary.

Hidden states are computed for the whole row, logits for target tokens alone, a chunk of tokens at a time:
`linear_cross_entropy` where the output layer is a plain matrix. An output layer with a bias, an adapter or hooks is called as a
module, chunk by chunk, and its logits are recomputed in the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from dgr_lightning.distributed.fsdp import as_forward_method, uncompiled
from dgr_lightning.models.attention import Documents, use_document_attention
from dgr_lightning.training.linear_cross_entropy import linear_cross_entropy, max_logits_on
from dgr_lightning.training.packing import RowTensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TargetLoss:
    """The summed loss of packed rows under one model.

    Attributes:
        can_fuse_head: whether the model's logits are the plain output of its output layer, so that loss and output layer can be
            fused. Some models scale or cap their logits (Granite, Cohere): the model's own forward computes these, all at once.
        isolates_documents: whether documents in a row do not see each other. Where they do (an attention that ignores position
            ids), every document needs a row to itself.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Probes with a tiny forward pass whether packed documents are isolated and how logits are computed. Collective.

        Args:
            model: fp32 weights, in eval mode.
        """
        self._model = model
        use_document_attention(model)
        self._forward = as_forward_method(model, self._summed)
        with uncompiled(model):
            self.isolates_documents, self.can_fuse_head = as_forward_method(model, self._probe)()

    def _probe(self) -> tuple[bool, bool]:
        """Returns `isolates_documents` and `can_fuse_head`."""
        model = self._model
        ids = torch.arange(9, device=model.device)[None] % model.config.get_text_config().vocab_size
        positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]], device=model.device)
        with torch.no_grad():
            packed = self._hidden(ids, positions, Documents([4, 5]))
            alone = self._hidden(ids[:, 4:], positions[:, 4:], Documents([5]))
            logits = model(input_ids=ids[:, 4:], use_cache=False).logits
            head = model.get_output_embeddings()(alone)
            difference = (packed[:, 4:] - alone).float().norm() / alone.float().norm()
        # If another document is seen, hidden states differ by about half. In bf16 they differ by a few per cent anyway, since
        # rows of another length are summed in another order. Logits are the same products of the same shapes, or they are not.
        isolates_documents = bool(difference <= (1e-3 if packed.dtype == torch.float32 else 0.1))
        return isolates_documents, bool((head - logits).abs().max() <= 1e-3 * logits.abs().max())

    def __call__(self, row: RowTensors, max_logits: int | None = None) -> Tensor:
        """Returns the sum of the cross entropy over the row's target tokens, by their weights if any, in fp32.

        Args:
            row: a packed row, on the model's device.
            max_logits: how many logits may exist at once; None: `max_logits_on` the device.
        """
        total: Tensor = self._forward(row, max_logits)
        return total

    def _summed(self, row: RowTensors, max_logits: int | None) -> Tensor:
        targets = row["targets"]
        labels = row["labels"][0, targets]
        weights, documents = row["weights"], Documents(row["document_lengths"], row["document_ends"])
        if self.can_fuse_head:
            hidden = self._hidden(row["input_ids"], row["position_ids"], documents)[0, targets]
            return summed_cross_entropy(self._model.get_output_embeddings(), hidden, labels, max_logits, weights)
        logits = self._model(
            input_ids=row["input_ids"],
            position_ids=row["position_ids"],
            documents=documents,
            use_cache=False,
            logits_to_keep=targets,
        ).logits
        return _weighted_sum(logits[0], labels, weights)

    def _hidden(self, input_ids: Tensor, position_ids: Tensor, documents: Documents) -> Tensor:
        # A model with an attention of its own isolates documents by their position ids, and only without a cache and without an
        # attention mask.
        hidden: Tensor = self._model.base_model(
            input_ids=input_ids,
            position_ids=position_ids,
            documents=documents,
            use_cache=False,
        ).last_hidden_state
        return hidden


def summed_cross_entropy(
    head: nn.Module, hidden: Tensor, labels: Tensor, max_logits: int | None = None, weights: Tensor | None = None
) -> Tensor:
    """Returns the cross entropy of `head(hidden)` against `labels`, summed in fp32.

    Args:
        head: the output layer, [N, width] → [N, vocabulary].
        hidden: [N, width].
        labels: [N], int64.
        max_logits: N × vocabulary above this is computed in chunks; None: `max_logits_on` the device.
        weights: [N], fp32, what each token's loss counts; None: 1 each.
    """
    weight = head.get_parameter("weight")
    if _is_matrix(head):
        return linear_cross_entropy(hidden, weight, labels, max_logits, weights)
    chunk = max(1, (max_logits or max_logits_on(hidden.device)) // len(weight))
    if len(labels) <= chunk:
        return _chunk_loss(head, hidden, labels, weights)
    counts = [None] * -(-len(labels) // chunk) if weights is None else weights.split(chunk)
    losses = [
        checkpoint(_chunk_loss, head, some, wanted, count, use_reentrant=False, preserve_rng_state=False)
        for some, wanted, count in zip(hidden.split(chunk), labels.split(chunk), counts, strict=True)
    ]
    return torch.stack(losses).sum()


def _is_matrix(head: nn.Module) -> bool:
    """Whether an output layer is a product with its weight and nothing else."""
    # Exactly this type: adapters, quantized layers and parametrizations subclass or wrap it.
    return type(head) is nn.Linear and head.bias is None and not (head._forward_hooks or head._forward_pre_hooks)


def _chunk_loss(head: nn.Module, hidden: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    return _weighted_sum(head(hidden), labels, weights)


def _weighted_sum(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return cross_entropy(logits.float(), labels, reduction="sum")
    return cross_entropy(logits.float(), labels, reduction="none") @ weights
