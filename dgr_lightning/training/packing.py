"""From encoded examples to what the model sees: the examples of an optimizer step, packed into rows without padding.

Two decisions are kept apart. *Which* examples share an update is the recipe: a pure function of (seed, epoch, step). *How* they
lie in rows of `max_tokens`, and on which rank, is the machine's affair and changes no update, because documents in a row do not
see each other (`document_attention`, position ids that restart) and because the loss of a step is summed over all its rows
before it is divided.

Rows are filled by best-fit decreasing (Johnson 1973: at most 11/9 of the fewest rows possible, plus one). Ranks compute in
step, so all of them get as many rows as the one that needs most; what is missing are rows that nothing is learned from.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypedDict

import torch

from dgr_lightning.hashes import sorted_by_hash

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Encoded

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
        document_ends: shape [documents + 1], int32: 0, and where each document ends. Made here for the same reason.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    document_lengths: list[int]
    document_ends: torch.Tensor


class StepBatch(TypedDict):
    """What one optimizer step learns from.

    Attributes:
        rows: those of this rank; every rank has as many.
        num_targets: target tokens of the step, on all ranks.
        num_tokens: tokens of its documents, on all ranks.
        num_pairs: pairs of tokens of which one may see the other, on all ranks.
        num_places: tokens that the rows of all ranks could hold in the time that the step takes: ranks × the most tokens that
            any of them computes. What is no document is waste.
    """

    rows: list[RowTensors]
    num_targets: int
    num_tokens: int
    num_pairs: int
    num_places: int


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
    order = sorted_by_hash(range(num_examples), lambda index: f"{seed}/{epoch}/{index}")
    return [order[start : start + batch_size] for start in range(0, num_examples, batch_size)]


def pack(encoded: Sequence[Encoded], max_tokens: int) -> list[list[Encoded]]:
    """Distributes documents over rows of at most `max_tokens` tokens, by best-fit decreasing.

    A document is never split: one longer than `max_tokens` has a row of its own. Equal input gives equal rows.
    """
    rows: list[list[Encoded]] = []
    room: list[tuple[int, int]] = []  # what is left in a row, and which row: in order
    for document in sorted(encoded, key=lambda document: -len(document.ids)):
        size = len(document.ids)
        tightest = bisect_left(room, (size, 0))
        if tightest < len(room):
            left, row = room.pop(tightest)
        else:
            left, row = max_tokens, len(rows)
            rows.append([])
        rows[row].append(document)
        insort(room, (left - size, row))
    return rows


def deal(encoded: Sequence[Encoded], max_tokens: int, num_ranks: int) -> list[list[list[Encoded]]]:
    """Packs documents into rows and deals the rows to ranks: the same number to each, and nearly the same work.

    Where there are more ranks than full rows, rows are less than full: a step takes as long as its longest rank. Documents go,
    the longest first, to the row with the fewest tokens so far (Graham 1969: at most 4/3 of the shortest time possible).

    Args:
        encoded: the documents of a step.
        max_tokens: as for `pack`.
        num_ranks: processes that share the step.

    Returns:
        The rows of every rank. A row may be empty: nothing was left for it.
    """
    packed = pack(encoded, max_tokens)
    per_rank = -(-len(packed) // num_ranks)
    if num_ranks == 1:
        return [packed]
    rows: list[list[Encoded]] = [[] for _ in range(per_rank * num_ranks)]
    sizes = [0] * len(rows)
    for document in sorted(encoded, key=lambda document: -len(document.ids)):
        lightest = min(range(len(rows)), key=sizes.__getitem__)
        rows[lightest].append(document)
        sizes[lightest] += len(document.ids)
    if any(size > max_tokens and len(row) > 1 for size, row in zip(sizes, rows, strict=True)):
        rows = packed + [[] for _ in range(len(rows) - len(packed))]  # evenly spread they do not fit
    rows.sort(key=lambda row: -_num_tokens(row))
    # In turns that change direction, so that the rank with the longest row of one turn has the shortest of the next.
    turns = [rows[start : start + num_ranks] for start in range(0, len(rows), num_ranks)]
    dealt = [turn if number % 2 == 0 else turn[::-1] for number, turn in enumerate(turns)]
    return [list(own) for own in zip(*dealt, strict=True)]


def _places(row: Sequence[Encoded]) -> int:
    """Returns the tokens that `collate` makes of a row."""
    return max(1, -(-_num_tokens(row) // MULTIPLE)) * MULTIPLE


def _num_tokens(row: Sequence[Encoded]) -> int:
    return sum(len(document.ids) for document in row)


def collate(row: Sequence[Encoded]) -> RowTensors:
    """Returns the tensors of a packed row; see `RowTensors`. One without documents is all filler: its loss is zero."""
    input_ids: list[int] = []
    labels: list[int] = []
    for document in row:
        # The first token of a document is predicted by nothing, even where there is no prompt.
        num_silent = max(document.num_prompt, 1)
        input_ids += document.ids
        labels += [IGNORED] * (num_silent - 1) + document.ids[num_silent:] + [IGNORED]
    lengths = [len(document.ids) for document in row]
    targets = [position for position, label in enumerate(labels) if label != IGNORED]
    missing = -len(input_ids) % MULTIPLE if row else MULTIPLE
    if missing:
        input_ids += [_FILLER] * missing
        labels += [IGNORED] * missing
        lengths.append(missing)
    targets += [len(labels) - 1] * (
        -len(targets) % MULTIPLE if targets else MULTIPLE
    )  # never learned from: a document ends there
    return {
        "input_ids": torch.tensor([input_ids]),
        "position_ids": torch.tensor([[position for length in lengths for position in range(length)]]),
        "labels": torch.tensor([labels]),
        "targets": torch.tensor(targets, dtype=torch.long),
        "document_lengths": lengths,
        "document_ends": torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
    }


class StepLoader:
    """All steps of a training in order, one `StepBatch` each; it can stop anywhere and go on from there.

    To Lightning it is one long epoch: its length is the number of optimizer steps. It has no workers: packing a step takes less
    than a millisecond.

    Attributes:
        next_step: the step that is handed out next; a resume sets it.
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
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """Takes the encoded set, what determines its steps (see `step_examples`), and how they are dealt (see `deal`).

        Args:
            encoded: the set.
            batch_size: examples per step, on all ranks.
            max_tokens: capacity of a row; 0 gives every document a row of its own.
            seed: the run's seed.
            epochs: passes over the set.
            max_steps: stop after so many steps.
            rank: whose rows this loader yields.
            num_ranks: processes that share a step.
        """
        self.encoded = encoded
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.seed = seed
        self.num_steps = num_steps(len(encoded), batch_size, epochs, max_steps)
        self.next_step = 0
        self._rank, self._num_ranks = rank, num_ranks

    def __len__(self) -> int:
        """Returns the number of steps of the whole training, those already done included."""
        return self.num_steps

    def num_seen(self) -> int:
        """Returns how many examples the training learns from at least once."""
        return min(len(self.encoded), self.num_steps * self.batch_size)

    def waste(self, num_steps: int) -> float:
        """Returns the share of the places in the rows of the first steps that no document fills."""
        steps = step_examples(len(self.encoded), self.batch_size, self.seed, 0)[: min(num_steps, self.num_steps)]
        tokens = places = 0
        for step in steps:
            examples = [self.encoded[index] for index in step]
            tokens += _num_tokens(examples)
            places += self._num_places(self._deal(examples))
        return 1 - tokens / places

    def __iter__(self) -> Iterator[StepBatch]:
        """Yields the steps from the next one on."""
        per_epoch = -(-len(self.encoded) // self.batch_size)
        order: list[list[int]] = []
        ordered_epoch = -1
        while self.next_step < self.num_steps:
            epoch, step = divmod(self.next_step, per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = step_examples(len(self.encoded), self.batch_size, self.seed, epoch), epoch
            self.next_step += 1
            yield self._batch([self.encoded[index] for index in order[step]])

    def _batch(self, examples: Sequence[Encoded]) -> StepBatch:
        dealt = self._deal(examples)
        return {
            "rows": [collate(row) for row in dealt[self._rank]],
            "num_targets": sum(len(example.ids) - max(example.num_prompt, 1) for example in examples),
            "num_tokens": _num_tokens(examples),
            "num_pairs": sum(len(example.ids) * (len(example.ids) + 1) // 2 for example in examples),
            "num_places": self._num_places(dealt),
        }

    def _deal(self, examples: Sequence[Encoded]) -> list[list[list[Encoded]]]:
        return deal(examples, self.max_tokens, self._num_ranks)

    def _num_places(self, dealt: list[list[list[Encoded]]]) -> int:
        return self._num_ranks * max(sum(_places(row) for row in rows) for rows in dealt)
