"""From encoded examples to what the model sees: the examples of an optimizer step, packed into rows without padding.

Two decisions are kept apart. *Which* examples share an update is the recipe: a pure function of (seed, epoch, step). *How* they
are packed into rows of `max_tokens` and sharded over ranks depends on the machine and changes no update, because documents in a
row do not see each other (`models/attention.py`, position ids that restart), and because the loss of a step is summed over all
its rows before it is divided.

Rows are filled by best-fit decreasing (Johnson 1973: at most 11/9 of the fewest rows possible, plus one). Ranks run in
lockstep, so all of them get the same number of rows; a rank with fewer gets empty ones, which are padding alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypedDict

import torch

from dgr_lightning.hashes import sorted_by_hash

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Encoded

IGNORED = -100
# Rows and their targets are padded to multiples of this. oneDNN compiles a kernel for every shape of a matrix product: with
# rows of any length, 400 bf16 steps of the miniature took 30 % longer and 0.9 GB more.
MULTIPLE = 64
# Few lengths: between a power of two and the next, rows have one of so many.
_LENGTHS_PER_OCTAVE = 8
_PADDING_ID = 0  # in every vocabulary; padding is in no loss, and no document attends to it


class RowTensors(TypedDict):
    """A packed row as tensors, int64 and of shape [1, T] unless stated otherwise.

    Attributes:
        input_ids: the documents, concatenated.
        position_ids: 0, 1, 2 … from the beginning of each document.
        labels: the token that each position predicts, already shifted by one; `IGNORED` inside prompts and at the last token of
            every document.
        targets: shape [N], the positions whose label is not ignored, padded with the last position to a multiple of
            `MULTIPLE`. Computed here to spare the GPU a synchronisation.
        weights: shape [N], float32: what the loss of each target counts; None: 1 each.
        document_lengths: tokens of each document, a list of numbers; padding is one more document.
        document_ends: shape [documents + 1], int32: 0, and where each document ends. Computed here for the same reason.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None
    document_lengths: list[int]
    document_ends: torch.Tensor


class StepBatch(TypedDict):
    """The examples of one optimizer step.

    Attributes:
        rows: those of this rank; all ranks have the same number.
        num_targets: target tokens of the step, on all ranks.
        denominator: what the summed loss of the step is divided by, on all ranks: its target tokens, or its examples where the
            targets of each add up to 1.
        num_tokens: tokens of its documents, on all ranks.
        num_pairs: pairs of tokens of which one attends to the other, on all ranks.
        num_padded_tokens: tokens with padding, on all ranks: their number × the most that any of them computes, since ranks
            wait for the slowest.
    """

    rows: list[RowTensors]
    num_targets: int
    denominator: int
    num_tokens: int
    num_pairs: int
    num_padded_tokens: int


@dataclass(frozen=True)
class LargestRow:
    """The row of a training that takes most memory.

    Attributes:
        documents: that it holds.
        step: in which it comes, counted from 1.
        several: whether any step has more than one row on a rank.
        few_lengths: whether it has one of few lengths.
    """

    documents: Sequence[Encoded]
    step: int
    several: bool
    few_lengths: bool = False

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of its documents, and of its padding as one more."""
        lengths = [len(document.ids) for document in self.documents]
        padding = padded_length(sum(lengths), few_lengths=self.few_lengths) - sum(lengths)
        return tuple([*lengths, padding] if padding else lengths)

    @property
    def num_targets(self) -> int:
        """Its target tokens, padded."""
        return max(1, -(-sum(map(num_targets, self.documents)) // MULTIPLE)) * MULTIPLE


def num_steps(num_examples: int, batch_size: int, epochs: int, max_steps: int | None = None) -> int:
    """Returns the number of optimizer steps of a training; the last step of an epoch may have fewer examples."""
    steps = epochs * -(-num_examples // batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def step_examples(num_examples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Returns, for every optimizer step of an epoch, the indices of its examples.

    Examples are ordered by a hash, so that the order is the same on every machine and with every version of every library.

    Args:
        num_examples: size of the set.
        batch_size: examples per step; the last step of an epoch takes the remainder.
        seed: the run's seed.
        epoch: counted from 0; every epoch has another order.
    """
    order = sorted_by_hash(range(num_examples), lambda index: f"{seed}/{epoch}/{index}")
    return [order[start : start + batch_size] for start in range(0, num_examples, batch_size)]


def pack(encoded: Sequence[Encoded], max_tokens: int) -> list[list[Encoded]]:
    """Packs documents into rows of at most `max_tokens` tokens, by best-fit decreasing.

    A document is never split: one longer than `max_tokens` gets a row to itself. Equal input gives equal rows.
    """
    rows: list[list[Encoded]] = []
    room: list[tuple[int, int]] = []  # sorted: the room left in a row, and the row's index
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


def shard_rows(encoded: Sequence[Encoded], max_tokens: int, num_ranks: int) -> list[list[list[Encoded]]]:
    """Packs documents into rows and shards the rows over ranks: the same number of rows each, and nearly the same work.

    A step takes as long as its slowest rank, so several ranks do not fill their rows one by one: documents go, the longest
    first, to the row with the fewest tokens so far (Graham 1969: at most 4/3 of the shortest time possible).

    Args:
        encoded: the documents of a step.
        max_tokens: as for `pack`.
        num_ranks: ranks that share the step.

    Returns:
        The rows of every rank, some of which may be empty.
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
        rows = packed + [[] for _ in range(len(rows) - len(packed))]  # spread evenly, they exceed max_tokens
    rows.sort(key=lambda row: -_num_tokens(row))
    # Alternating the direction gives the rank with the longest row of one round the shortest of the next.
    rounds = [rows[start : start + num_ranks] for start in range(0, len(rows), num_ranks)]
    alternating = [some if number % 2 == 0 else some[::-1] for number, some in enumerate(rounds)]
    return [list(shard) for shard in zip(*alternating, strict=True)]


def padded_length(num_tokens: int, *, few_lengths: bool = False) -> int:
    """Returns the length of a row's tensors.

    Args:
        num_tokens: of its documents.
        few_lengths: whether compiled layers compute it. To spare the compiler, the kernels' choices and the allocator a new
            shape at almost every row, rows then have one of few lengths: 8 in an octave, at least 64 apart. On the rows of
            STAR-1, 8 in a step, that is 9 lengths instead of 29, and 3.9 % padding instead of 1.0 %.
    """
    size = max(1, num_tokens)
    multiple = max(MULTIPLE, 2 ** (size.bit_length() - 1) // _LENGTHS_PER_OCTAVE) if few_lengths else MULTIPLE
    return -(-size // multiple) * multiple


def _num_tokens(row: Sequence[Encoded]) -> int:
    return sum(len(document.ids) for document in row)


def num_targets(document: Encoded) -> int:
    """Returns how many tokens of a document are predicted: its target, but never its first token."""
    return len(document.ids) - max(document.num_prompt, 1)


def collate(row: Sequence[Encoded], mean_of: str = "tokens", *, few_lengths: bool = False) -> RowTensors:
    """Returns the tensors of a packed row, padded; the loss of an empty one is zero.

    Args:
        row: its documents.
        mean_of: `tokens`: every target weighs 1; `examples`: those of a document add up to 1.
        few_lengths: whether its length is one of few (`padded_length`).
    """
    input_ids: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    for document in row:
        num_ignored = len(document.ids) - num_targets(document)
        weights += [1 / max(1, num_targets(document))] * num_targets(document)
        input_ids += document.ids
        labels += [IGNORED] * (num_ignored - 1) + document.ids[num_ignored:] + [IGNORED]
    lengths = [len(document.ids) for document in row]
    targets = [position for position, label in enumerate(labels) if label != IGNORED]
    num_padding = padded_length(len(input_ids), few_lengths=few_lengths) - len(input_ids)
    if num_padding:
        input_ids += [_PADDING_ID] * num_padding
        labels += [IGNORED] * num_padding
        lengths.append(num_padding)
    # The last position is a document's last token, whose label is ignored.
    num_filled = -len(targets) % MULTIPLE if targets else MULTIPLE
    targets += [len(labels) - 1] * num_filled
    weights += [0.0] * num_filled
    return {
        "input_ids": torch.tensor([input_ids]),
        "position_ids": torch.tensor([[position for length in lengths for position in range(length)]]),
        "labels": torch.tensor([labels]),
        "targets": torch.tensor(targets, dtype=torch.long),
        "weights": torch.tensor(weights) if mean_of == "examples" else None,
        "document_lengths": lengths,
        "document_ends": torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
    }


class StepLoader:
    """All steps of a training in order, one `StepBatch` each; it can start at any step.

    To Lightning it is one long epoch: its length is the number of optimizer steps. It has no worker processes, since packing a
    step takes less than a millisecond.

    Attributes:
        next_step: the step that is yielded next; a resume sets it.
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
        mean_of: str = "tokens",
        few_lengths: bool = False,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """Takes the encoded set, and the arguments of `step_examples` and `shard_rows`.

        Args:
            encoded: the set.
            batch_size: examples per step, over all ranks.
            max_tokens: capacity of a row; 0 gives every document a row to itself.
            seed: the run's seed.
            epochs: passes over the set.
            max_steps: an earlier end; None: after all epochs.
            mean_of: `tokens` or `examples`: what the loss of a step is the mean of.
            few_lengths: whether rows have one of few lengths, which is what compiled layers want.
            rank: the rank whose rows are yielded.
            num_ranks: ranks that share a step.
        """
        self.encoded = encoded
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.seed = seed
        self.num_steps = num_steps(len(encoded), batch_size, epochs, max_steps)
        self.next_step = 0
        self._mean_of, self._few_lengths = mean_of, few_lengths
        self._rank, self._num_ranks = rank, num_ranks

    def __len__(self) -> int:
        """Returns the number of steps of the whole training, steps before a resume included."""
        return self.num_steps

    def num_seen(self) -> int:
        """Returns how many examples are trained on at least once."""
        return min(len(self.encoded), self.num_steps * self.batch_size)

    def padding_fraction(self, num_steps: int) -> float:
        """Returns the share of padding in the padded tokens of the first `num_steps` steps."""
        steps = step_examples(len(self.encoded), self.batch_size, self.seed, 0)[: min(num_steps, self.num_steps)]
        num_tokens = num_padded_tokens = 0
        for step in steps:
            examples = [self.encoded[index] for index in step]
            num_tokens += _num_tokens(examples)
            num_padded_tokens += self._num_padded_tokens(self._shard(examples))
        return 1 - num_tokens / num_padded_tokens

    def largest_row(self) -> LargestRow:
        """Returns the row of the whole training that takes most memory, on whichever rank: the one with most tokens.

        Of equals, the one whose documents are longest: attention on a CPU takes the square of that.
        """
        per_epoch = -(-len(self.encoded) // self.batch_size)
        best: tuple[Sequence[Encoded], tuple[int, int]] = ([], (0, 0))
        most_rows, place = 1, 0
        for epoch in range(-(-self.num_steps // per_epoch)):
            steps = step_examples(len(self.encoded), self.batch_size, self.seed, epoch)
            for number, step in enumerate(steps[: self.num_steps - epoch * per_epoch], epoch * per_epoch + 1):
                shards = self._shard([self.encoded[index] for index in step])
                most_rows = max(most_rows, len(shards[0]))
                for row in (row for rows in shards for row in rows):
                    size = self._padded_length(row), sum(len(document.ids) ** 2 for document in row)
                    if size > best[1]:
                        best, place = (row, size), number
        return LargestRow(best[0], place, several=most_rows > 1, few_lengths=self._few_lengths)

    def __iter__(self) -> Iterator[StepBatch]:
        """Yields the steps from `next_step` on."""
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
        shards, total = self._shard(examples), sum(map(num_targets, examples))
        return {
            "rows": [collate(row, self._mean_of, few_lengths=self._few_lengths) for row in shards[self._rank]],
            "num_targets": total,
            "denominator": total if self._mean_of == "tokens" else len(examples),
            "num_tokens": _num_tokens(examples),
            "num_pairs": sum(len(example.ids) * (len(example.ids) + 1) // 2 for example in examples),
            "num_padded_tokens": self._num_padded_tokens(shards),
        }

    def _shard(self, examples: Sequence[Encoded]) -> list[list[list[Encoded]]]:
        return shard_rows(examples, self.max_tokens, self._num_ranks)

    def _padded_length(self, row: list[Encoded]) -> int:
        return padded_length(_num_tokens(row), few_lengths=self._few_lengths)

    def _num_padded_tokens(self, shards: list[list[list[Encoded]]]) -> int:
        def padded(rows: list[list[Encoded]]) -> int:
            return sum(map(self._padded_length, rows))

        return self._num_ranks * max(map(padded, shards))
