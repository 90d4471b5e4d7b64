"""The tokens that every row of a batch has seen, prompt and output: what a repetition penalty needs to know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgr_lightning.engines.sampling import penalised


class SeenTokens:
    """A mark for every slot and every token of the vocabulary; without a penalty it holds nothing and changes nothing.

    Marks are written in place, so that a recorded step of the batch goes on with them.
    """

    def __init__(self, penalty: float, vocabulary: int, device: torch.device) -> None:
        """Has no slots yet.

        Args:
            penalty: of `Sampling.repetition_penalty`; 1 is none.
            vocabulary: number of tokens that have a logit.
            device: of the model.
        """
        self._penalty = penalty
        self._marks = torch.zeros(0, vocabulary, dtype=torch.bool, device=device) if penalty != 1 else None

    def start(self, num_slots: int) -> None:
        """Begins a batch of slots that have seen nothing."""
        if self._marks is not None:
            self._marks = self._marks.new_zeros(num_slots, self._marks.shape[1])

    def keep(self, slots: Sequence[int]) -> None:
        """Keeps the marks of some slots, in this order."""
        if self._marks is not None:
            self._marks = self._marks[torch.tensor(slots, dtype=torch.long, device=self._marks.device)]

    def put(self, slot: int, ids: Sequence[int]) -> None:
        """Makes `ids` the tokens that a slot has seen."""
        if self._marks is not None:
            self._marks[slot] = False
            self._marks[slot, torch.tensor(ids, dtype=torch.long, device=self._marks.device)] = True

    def add(self, tokens: Tensor) -> None:
        """Adds the next token of every slot, int64 (slots,)."""
        if self._marks is not None:
            self._marks.scatter_(1, tokens[:, None], True)

    def penalise(self, logits: Tensor) -> Tensor:
        """Returns logits, (slots, vocabulary), with the penalty on tokens that were seen."""
        return logits if self._marks is None else penalised(logits, self._marks, self._penalty)

    def copy(self) -> Tensor | None:
        """Returns the marks as they are, to return to them."""
        return None if self._marks is None else self._marks.clone()

    def restore(self, marks: Tensor | None) -> None:
        """Returns to marks that `copy` gave."""
        if self._marks is not None and marks is not None:
            self._marks.copy_(marks)
