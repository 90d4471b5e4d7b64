"""From encoded examples to what the model sees: the examples of an optimizer step, packed into rows without padding.

Two decisions are kept apart. *Which* examples share an update is the recipe: a pure function of (seed, epoch, step). *How* they
lie in rows of `max_tokens` is the machine's affair and changes no update, because documents in a row do not see each other
(`document_attention`, position ids that restart) and because the loss of a step is summed over its rows before it is divided.

Rows are filled by first-fit decreasing (Johnson 1973: at most 11/9 of the fewest rows possible, plus one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

import torch

if TYPE_CHECKING:
    from dgr_lightning.chat import Encoded

IGNORED = -100
# Rows and their targets are filled up to multiples of this. oneDNN compiles a kernel for every shape of a matrix product: with
# rows of any length, 400 bf16 steps of the miniature took 30 % longer and 0.9 GB more.
MULTIPLE = 64
_FILLER = 0  # any token of any vocabulary: nothing is learned from it, and no document sees it


class RowTensors(TypedDict):
    """A packed row as tensors, int64, of shape [1, T] where not said otherwise.

    Attributes:
        input_ids: the documents, one behind the other.
        position_ids: 0, 1, 2 … from the beginning of each document.
        labels: the token that each position is to predict, already shifted by one; `IGNORED` where nothing is to be learned
            (inside prompts, and at the last token of every document).
        targets: shape [N], the positions whose label is not ignored, and then the last position until N is a multiple of
            `MULTIPLE`. Finding them here spares the GPU a synchronisation.
        document_lengths: tokens of each document, plain numbers; what fills up the row is a document of its own.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    document_lengths: list[int]


class StepBatch(TypedDict):
    """What one optimizer step learns from: its rows, and the number of target tokens in all of them."""

    rows: list[RowTensors]
    num_targets: int


def num_steps(num_examples: int, batch_size: int, epochs: int, max_steps: int | None = None) -> int:
    """Returns the number of optimizer steps of a training; the last step of an epoch may have fewer examples."""
    steps = epochs * -(-num_examples // batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def step_examples(num_examples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Returns, for every optimizer step of an epoch, the indices of its examples.

    A pure function: the order is that of a hash, so it is the same on every machine and with every version of every library.

    Args:
        num_examples: size of the set.
        batch_size: examples per step; the last step of the epoch takes what is left.
        seed: the run's seed.
        epoch: counted from 0; every epoch has an order of its own.
    """

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()

    order = sorted(range(num_examples), key=rank)
    return [order[start : start + batch_size] for start in range(0, num_examples, batch_size)]


def pack(encoded: Sequence[Encoded], max_tokens: int) -> list[list[Encoded]]:
    """Distributes documents over rows of at most `max_tokens` tokens, by first-fit decreasing.

    A document is never split: one longer than `max_tokens` has a row of its own. Equal input gives equal rows.
    """
    rows: list[list[Encoded]] = []
    room: list[int] = []
    for document in sorted(encoded, key=lambda document: -len(document.ids)):
        size = len(document.ids)
        fitting = next((index for index, left in enumerate(room) if size <= left), None)
        if fitting is None:
            rows.append([document])
            room.append(max_tokens - size)
        else:
            rows[fitting].append(document)
            room[fitting] -= size
    return rows


def collate(row: Sequence[Encoded]) -> RowTensors:
    """Returns the tensors of a packed row; see `RowTensors`."""
    input_ids: list[int] = []
    labels: list[int] = []
    for document in row:
        # The first token of a document is predicted by nothing, even where there is no prompt.
        num_silent = max(document.num_prompt, 1)
        input_ids += document.ids
        labels += [IGNORED] * (num_silent - 1) + document.ids[num_silent:] + [IGNORED]
    lengths = [len(document.ids) for document in row]
    targets = [position for position, label in enumerate(labels) if label != IGNORED]
    missing = -len(input_ids) % MULTIPLE
    if missing:
        input_ids += [_FILLER] * missing
        labels += [IGNORED] * missing
        lengths.append(missing)
    targets += [len(labels) - 1] * (-len(targets) % MULTIPLE)  # never learned from: a document ends there
    return {
        "input_ids": torch.tensor([input_ids]),
        "position_ids": torch.tensor([[position for length in lengths for position in range(length)]]),
        "labels": torch.tensor([labels]),
        "targets": torch.tensor(targets, dtype=torch.long),
        "document_lengths": lengths,
    }


class StepLoader:
    """All steps of a training in order, one `StepBatch` each; it can stop anywhere and go on from there.

    To Lightning it is one long epoch: its length is the number of optimizer steps, and its state (the next step) lies in
    every checkpoint. It has no workers: packing a step takes less than a millisecond.
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        *,
        batch_size: int,
        max_tokens: int,
        seed: int,
        epochs: int,
        max_steps: int | None = None,
    ) -> None:
        """Takes the encoded set and what determines its steps; see `step_examples` and `pack`."""
        self.encoded = encoded
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.seed = seed
        self.num_steps = num_steps(len(encoded), batch_size, epochs, max_steps)
        self.next_step = 0

    def __len__(self) -> int:
        """Returns the number of steps of the whole training, those already done included."""
        return self.num_steps

    def __iter__(self) -> Iterator[StepBatch]:
        """Yields the steps from the next one on."""
        per_epoch = -(-len(self.encoded) // self.batch_size)
        order: list[list[int]] = []
        ordered_epoch = -1
        while self.next_step < self.num_steps:
            epoch, step = divmod(self.next_step, per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = step_examples(len(self.encoded), self.batch_size, self.seed, epoch), epoch
            rows = [collate(row) for row in pack([self.encoded[index] for index in order[step]], self.max_tokens)]
            self.next_step += 1
            yield {"rows": rows, "num_targets": sum(int((row["labels"] != IGNORED).sum()) for row in rows)}

    def state_dict(self) -> dict[str, int]:
        """Returns the position: how many steps were handed out."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a position that `state_dict` returned."""
        self.next_step = state["next_step"]
