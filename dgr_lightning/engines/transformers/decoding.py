"""Continuous batching: the rows that are decoded together, and the slots that they join and leave.

When enough slots are free, waiting rows are admitted; when none waits, the batch shrinks to the rows that are left, and grows
again when others come. Prefill reads a prompt up to its last token, padded on the right, where causal attention needs no mask;
the last token is the input of the row's first decoding step. So a row that was preempted for want of memory is admitted again
like any other, with the tokens that it has generated as part of its prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.markup import escape
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from dgr_lightning.console import say
from dgr_lightning.engines.engine import LENGTH, STOP, Sampling, noise_stream
from dgr_lightning.engines.sampling import sample_tokens, uniforms
from dgr_lightning.engines.transformers.kv_cache import KeyValueCache
from dgr_lightning.engines.transformers.seen_tokens import SeenTokens
from dgr_lightning.engines.transformers.static_steps import BLOCK_STEPS, StaticSteps
from dgr_lightning.errors import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Prompt tokens of one prefill: enough to fill a device, few enough for a large model's activations.
PREFILL_TOKENS = {"cpu": 4096, "cuda": 16384}
# `run` returns after this many steps at the earliest: entering and preempted inference costs about one step of a small model.
_MIN_STEPS = 16
_MIN_GROWTH = 64


@dataclass
class DecodingRow:
    """A request that is being decoded, or waits for that.

    Attributes:
        key: the request's.
        ids: its prompt and the tokens generated so far.
        num_prompt: number of tokens of the prompt.
        budget: number of tokens that it may generate.
        start: column of the cache that holds its first token.
    """

    key: str
    ids: list[int]
    num_prompt: int
    budget: int
    start: int = 0

    @property
    def num_generated(self) -> int:
        """Tokens generated so far."""
        return len(self.ids) - self.num_prompt

    def append(self, token: int, stop_ids: frozenset[int]) -> str | None:
        """Appends the next token unless it is a stop token; returns the finish reason, or None if the row goes on."""
        if token in stop_ids:
            return STOP
        self.ids.append(token)
        return LENGTH if self.num_generated == self.budget else None


class ContinuousBatch:
    """The rows that are decoded together, and those that wait for a slot."""

    def __init__(
        self,
        model: PreTrainedModel,
        pad_id: int,
        sampling: Sampling,
        batch_size: int,
        cache_dtype: torch.dtype,
    ) -> None:
        """Has no rows yet.

        Args:
            model: in evaluation mode and with `grouped_attention` whenever `run` is called.
            pad_id: any token of the vocabulary.
            sampling: how tokens are chosen, and the stop tokens.
            batch_size: largest number of rows decoded together.
            cache_dtype: type of the cached keys and values.
        """
        self._model, self._pad_id, self._sampling = model, pad_id, sampling
        self._batch_size, self._dtype, self._device = batch_size, cache_dtype, model.device
        text_config = model.config.get_text_config()
        self._last_position = text_config.max_position_embeddings - 1
        self._seen = SeenTokens(sampling.repetition_penalty, text_config.vocab_size, self._device)
        self._stop_ids = frozenset(sampling.stop_ids)
        self._waiting: deque[DecodingRow] = deque()
        self._rows: list[DecodingRow | None] = []
        # By slot: the next input token, its position, tokens generated, stream of noise, first column.
        self._state = torch.empty(5, 0, dtype=torch.long, device=self._device)
        self._cache = KeyValueCache(cache_dtype, self._device, 0, 0)
        self._block_steps = BLOCK_STEPS[self._device.type]
        self._steps: StaticSteps | None = None
        self._is_warm = False

    @property
    def busy(self) -> bool:
        """Whether a row is unfinished."""
        return bool(self._waiting) or any(self._rows)

    @property
    def num_waiting(self) -> int:
        """Rows without a slot."""
        return len(self._waiting)

    def add(self, rows: Sequence[DecodingRow]) -> None:
        """Queues rows, to be decoded as slots become free."""
        if rows:
            self._waiting = _longest_first([*self._waiting, *rows])

    def run(self) -> list[tuple[DecodingRow, str]]:
        """Decodes until something is finished; returns the finished rows, each with its finish reason."""
        finished: list[tuple[DecodingRow, str]] = []
        num_steps = 0
        while self.busy and not (finished and num_steps >= _MIN_STEPS):
            self._schedule()
            for tokens in self._block():
                num_steps += 1
                for slot, token in enumerate(tokens):
                    row = self._rows[slot]
                    reason = row.append(token, self._stop_ids) if row else None
                    if row and reason:
                        finished.append((row, reason))
                        self._rows[slot] = None
        return finished

    def _block(self) -> list[list[int]]:
        """Makes one step or several, and returns the next tokens of every slot, step by step."""
        if self._block_steps == 1:
            return [self._step()]
        if not self._is_warm:  # the first step of a shape sets up what a graph cannot
            self._is_warm = True
            return [self._step()]
        if self._steps is None:
            try:
                self._steps = StaticSteps(
                    self._model, self._cache, self._state, self._sampling, self._last_position, self._seen
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                say(f"[dim]decoding step by step, since a step cannot be recorded: {escape(one_line(error, 120))}[/]")
                self._block_steps = 1
                return [self._step()]
        num_steps = min(self._block_steps, self._cache.num_columns - self._cache.end)
        blocks, exact = self._steps.run(num_steps, [row is not None for row in self._rows])
        return blocks if exact else [*blocks, self._step()]

    def _forget_steps(self) -> None:
        """Drops the recorded step, whose slots and columns are no longer there."""
        self._steps, self._is_warm = None, False

    def _schedule(self) -> None:
        """Fills free slots, or adds or removes some, where enough of them are concerned; makes room for the next column."""
        num_free = self._rows.count(None)
        if self._waiting:
            if any(self._rows):
                num_free += self._add_slots(num_free)
            if num_free * 8 >= len(self._rows):
                self._admit()
        elif num_free * (4 if self._block_steps == 1 else 2) >= len(self._rows):  # each shape is recorded anew
            self._repack([slot for slot, row in enumerate(self._rows) if row])
        if self._cache.end == self._cache.num_columns:
            self._make_room()

    def _add_slots(self, num_free: int) -> int:
        """Grows a batch that had shrunk, for the rows that wait; returns the number of slots added."""
        num_slots = len(self._rows)
        wanted = min(self._batch_size - num_slots, len(self._waiting) - num_free)
        if wanted * 8 < num_slots or wanted <= 0:
            return 0
        columns = max(self._cache.num_columns, len(self._waiting[0].ids) + self._growth())
        num_new = min(wanted, self._cache.num_fitting(columns) - num_slots)
        if num_new <= 0:
            return 0
        # Until a row is admitted to it, a new slot's content does not matter: a copy of the first slot's.
        self._repack([*range(num_slots), *[0] * num_new])
        self._rows[num_slots:] = [None] * num_new
        return num_new

    def _step(self) -> list[int]:
        """Runs the model on one token of every slot and returns the next tokens, those of free slots too."""
        begin, end = self._cache.begin, self._cache.end
        tokens, positions, num_generated, streams, starts = self._state
        mask = None
        if any(row.start > begin for row in self._rows if row):
            mask = (torch.arange(begin, end + 1, device=self._device) >= starts[:, None])[:, None, None, :]
        logits = self._model(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask,
            past_key_values=self._cache.layers,
            use_cache=True,
        ).logits
        self._cache.end += 1
        noise = uniforms(streams, num_generated)
        sampling = self._sampling
        penalised = self._seen.penalise(logits[:, -1])
        self._state[0] = sample_tokens(penalised, sampling.temperature, sampling.top_p, noise, sampling.top_k)
        self._seen.add(self._state[0])
        self._state[1:3] += 1
        # Free slots are decoded too, and must not run past a table of learned positions.
        self._state[1].clamp_(max=self._last_position)
        return self._state[0].tolist()

    def _admit(self) -> None:
        """Prefills waiting rows into free slots."""
        if not any(self._rows):
            num_slots = min(self._batch_size, len(self._waiting))
            self._forget_steps()
            self._rows = [None] * num_slots
            self._state = torch.zeros(5, num_slots, dtype=torch.long, device=self._device)
            self._seen.start(num_slots)
            self._cache = KeyValueCache(self._dtype, self._device, num_slots, end=len(self._waiting[0].ids) - 1)
        free = deque(slot for slot, row in enumerate(self._rows) if row is None)
        while self._waiting and free and free[0] < len(self._rows):
            num_rows = max(1, PREFILL_TOKENS[self._device.type] // len(self._waiting[0].ids))
            rows = [self._waiting.popleft() for _ in range(min(num_rows, len(free), len(self._waiting)))]
            self._prefill(rows, [free.popleft() for _ in rows])
        self._cache.begin = min(row.start for row in self._rows if row)

    def _prefill(self, rows: Sequence[DecodingRow], slots: Sequence[int]) -> None:
        """Reads rows up to their last token and writes them into free slots."""
        # Of a prompt of one token nothing needs reading; the token is read all the same, for the shapes, and not used.
        ids = pad_right([row.ids[:-1] or row.ids for row in rows], self._pad_id, self._device)
        read = DynamicCache()
        self._model(input_ids=ids, past_key_values=read, use_cache=True, logits_to_keep=1)
        layers = [layer for layer in read.layers if isinstance(layer, DynamicLayer)]
        states = [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
        lengths = [len(row.ids) - 1 for row in rows]
        if not self._cache.num_columns:
            self._cache.allocate(states, self._cache.end + self._growth(), min_slots=len(rows))
            self._rows, self._state = self._rows[: self._cache.num_slots], self._state[:, : self._cache.num_slots]
            self._seen.keep(range(len(self._rows)))
        missing = max(lengths) - self._cache.end
        if missing > 0:
            self._repack(range(len(self._rows)), front=self._cache.begin + missing)
        self._cache.write(states, lengths, slots)
        for row, slot, length in zip(rows, slots, lengths, strict=True):
            row.start = self._cache.end - length
            self._rows[slot] = row
            self._seen.put(slot, row.ids)
            self._state[:, slot] = torch.tensor(
                (row.ids[-1], length, row.num_generated, noise_stream(self._sampling.seed, row.key), row.start)
            )

    def _growth(self) -> int:
        """Columns to make room for: half as many as are in use, and no more than the present rows can need."""
        growth = max(_MIN_GROWTH, (self._cache.end - self._cache.begin) // 2)
        if self._waiting:
            return growth
        return min(growth, max((row.budget - row.num_generated for row in self._rows if row), default=growth))

    def _make_room(self) -> None:
        """Makes the cache wider; where memory is not enough for that, preempts the shortest rows."""
        num_columns = self._cache.end - self._cache.begin + self._growth()
        by_length = sorted(range(len(self._rows)), key=lambda slot: -len(row.ids) if (row := self._rows[slot]) else 0)
        num_kept = max(1, min(len(by_length), self._cache.num_fitting(num_columns)))
        preempted = [row for slot in by_length[num_kept:] if (row := self._rows[slot])]
        self._waiting = _longest_first([*self._waiting, *preempted])
        self._repack(sorted(by_length[:num_kept]))

    def _repack(self, slots: Sequence[int], front: int = 0) -> None:
        """Keeps only `slots`, after `front` unused columns."""
        self._forget_steps()
        moved = self._cache.repack(slots, self._growth(), front)
        self._rows = [self._rows[slot] for slot in slots]
        self._state = self._state[:, torch.tensor(slots, device=self._device)]
        self._seen.keep(slots)
        self._state[4] += moved
        for row in self._rows:
            if row:
                row.start += moved


def _longest_first(rows: Sequence[DecodingRow]) -> deque[DecodingRow]:
    """Orders rows for admission: the longest first, so that later ones seldom exceed the cache and padding is small."""
    return deque(sorted(rows, key=lambda row: -len(row.ids)))


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Tensor:
    """Returns token rows as one tensor (rows, longest), padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
