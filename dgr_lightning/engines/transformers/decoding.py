"""The decoding loop: rows that are generated together, and who moves in when one ends.

When enough slots are free, the next requests move in; where none waits, the remaining rows close up, and slots are added
again when others come.
A prompt is read up to
its last token, padded on the right, where causal attention needs no mask; the last token is the first that a decoding step
takes in. So joining is nothing special, and a row that had to leave for want of memory comes back the same way, with what it
had generated as part of its prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from dgr_lightning.engines.engine import LENGTH, STOP, Sampling
from dgr_lightning.engines.sampling import choose, noise_stream, uniforms
from dgr_lightning.engines.transformers.kv_cache import SlotCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Prompt tokens that one forward reads: enough to fill a device, few enough for a large model's activations.
PREFILL_TOKENS = {"cpu": 4096, "cuda": 16384}
# `run` comes back after so many steps at the earliest, since entering and leaving inference costs about one of a small model.
_STEPS_AT_ONCE = 16
_COLUMNS_AT_ONCE = 64


@dataclass
class Row:
    """A request on its way.

    Attributes:
        key: the request's.
        ids: its prompt and what was generated so far.
        num_prompt: tokens of the prompt.
        budget: tokens that it may generate.
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

    def take(self, token: int, stop_ids: frozenset[int]) -> str | None:
        """Takes the next token; returns why the row has ended, or None if it goes on."""
        if token in stop_ids:
            return STOP
        self.ids.append(token)
        return LENGTH if self.num_generated == self.budget else None


class Slots:
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
            model: whenever `run` is called, in evaluation mode and with `grouped_attention`.
            pad_id: any token of the vocabulary.
            sampling: how tokens are chosen and what ends a row.
            batch_size: rows that are decoded together at most.
            cache_dtype: type in which keys and values are kept.
        """
        self._model, self._pad_id, self._sampling = model, pad_id, sampling
        self._batch_size, self._dtype, self._device = batch_size, cache_dtype, model.device
        self._last_position = model.config.get_text_config().max_position_embeddings - 1
        self._stop_ids = frozenset(sampling.stop_ids)
        self._waiting: deque[Row] = deque()
        self._rows: list[Row | None] = []
        # By slot: the token to take in, its position, tokens generated, stream of noise, first column.
        self._state = torch.empty(5, 0, dtype=torch.long, device=self._device)
        self._cache = SlotCache(cache_dtype, self._device, 0, 0)

    @property
    def busy(self) -> bool:
        """Whether a row is unfinished."""
        return bool(self._waiting) or any(self._rows)

    @property
    def num_waiting(self) -> int:
        """Rows without a slot."""
        return len(self._waiting)

    def add(self, rows: Sequence[Row]) -> None:
        """Takes rows in, to be generated as slots come free."""
        if rows:
            self._waiting = _longest_first([*self._waiting, *rows])

    def run(self) -> list[tuple[Row, str]]:
        """Decodes until something is finished; returns it, with why each row ended."""
        finished: list[tuple[Row, str]] = []
        for step in count(1):
            self._arrange()
            for slot, token in enumerate(self._step()):
                row = self._rows[slot]
                reason = row.take(token, self._stop_ids) if row else None
                if row and reason:
                    finished.append((row, reason))
                    self._rows[slot] = None
            if not self.busy or (finished and step >= _STEPS_AT_ONCE):
                break
        return finished

    def _arrange(self) -> None:
        """Fills free slots, adds some or closes them up, once it is worth while; makes room for the next column."""
        num_free = self._rows.count(None)
        if self._waiting:
            if any(self._rows):
                num_free += self._add_slots(num_free)
            if num_free * 8 >= len(self._rows):
                self._admit()
        elif num_free * 4 >= len(self._rows):
            self._repack([slot for slot, row in enumerate(self._rows) if row])
        if self._cache.end == self._cache.num_columns:
            self._make_room()

    def _add_slots(self, num_free: int) -> int:
        """Adds slots for rows that wait, where they had been closed up before; returns how many."""
        num_slots = len(self._rows)
        wanted = min(self._batch_size - num_slots, len(self._waiting) - num_free)
        if wanted * 8 < num_slots or wanted <= 0:
            return 0
        columns = max(self._cache.num_columns, len(self._waiting[0].ids) + self._growth())
        num_new = min(wanted, self._cache.num_fitting(columns) - num_slots)
        if num_new <= 0:
            return 0
        # What a new slot holds until a row is seated in it does not matter: a copy of the first slot's.
        self._repack([*range(num_slots), *[0] * num_new])
        self._rows[num_slots:] = [None] * num_new
        return num_new

    def _step(self) -> list[int]:
        """Takes in one token of every slot and returns the next, that of free slots too."""
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
        self._state[0] = choose(logits[:, -1], self._sampling.temperature, self._sampling.top_p, noise)
        self._state[1:3] += 1
        # Free slots run on, and must not run past a table of learned positions.
        self._state[1].clamp_(max=self._last_position)
        return self._state[0].tolist()

    def _admit(self) -> None:
        """Moves waiting rows into free slots."""
        if not any(self._rows):
            num_slots = min(self._batch_size, len(self._waiting))
            self._rows = [None] * num_slots
            self._state = torch.zeros(5, num_slots, dtype=torch.long, device=self._device)
            self._cache = SlotCache(self._dtype, self._device, num_slots, end=len(self._waiting[0].ids) - 1)
        free = deque(slot for slot, row in enumerate(self._rows) if row is None)
        while self._waiting and free and free[0] < len(self._rows):
            num_rows = max(1, PREFILL_TOKENS[self._device.type] // len(self._waiting[0].ids))
            rows = [self._waiting.popleft() for _ in range(min(num_rows, len(free), len(self._waiting)))]
            self._seat(rows, [free.popleft() for _ in rows])
        self._cache.begin = min(row.start for row in self._rows if row)

    def _seat(self, rows: Sequence[Row], slots: Sequence[int]) -> None:
        """Reads rows up to their last token and puts them into free slots."""
        # A prompt of one token has nothing to be read; it is read all the same, for the shapes, and not used.
        ids = padded([row.ids[:-1] or row.ids for row in rows], self._pad_id, self._device)
        read = DynamicCache()
        self._model(input_ids=ids, past_key_values=read, use_cache=True, logits_to_keep=1)
        layers = [layer for layer in read.layers if isinstance(layer, DynamicLayer)]
        states = [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
        lengths = [len(row.ids) - 1 for row in rows]
        if not self._cache.num_columns:
            self._cache.make(states, self._cache.end + self._growth(), at_least=len(rows))
            self._rows, self._state = self._rows[: self._cache.num_slots], self._state[:, : self._cache.num_slots]
        missing = max(lengths) - self._cache.end
        if missing > 0:
            self._repack(range(len(self._rows)), front=self._cache.begin + missing)
        self._cache.write(states, lengths, slots)
        for row, slot, length in zip(rows, slots, lengths, strict=True):
            row.start = self._cache.end - length
            self._rows[slot] = row
            self._state[:, slot] = torch.tensor(
                (row.ids[-1], length, row.num_generated, noise_stream(self._sampling.seed, row.key), row.start)
            )

    def _growth(self) -> int:
        """Columns to make room for: half of what is in use, and no more than the rows there may need."""
        growth = max(_COLUMNS_AT_ONCE, (self._cache.end - self._cache.begin) // 2)
        if self._waiting:
            return growth
        return min(growth, max((row.budget - row.num_generated for row in self._rows if row), default=growth))

    def _make_room(self) -> None:
        """Makes the cache longer; where memory is not enough for that, the shortest rows go back to waiting."""
        num_columns = self._cache.end - self._cache.begin + self._growth()
        by_length = sorted(range(len(self._rows)), key=lambda slot: -len(row.ids) if (row := self._rows[slot]) else 0)
        num_kept = max(1, min(len(by_length), self._cache.num_fitting(num_columns)))
        leaving = [row for slot in by_length[num_kept:] if (row := self._rows[slot])]
        self._waiting = _longest_first([*self._waiting, *leaving])
        self._repack(sorted(by_length[:num_kept]))

    def _repack(self, slots: Sequence[int], front: int = 0) -> None:
        """Keeps only `slots`, behind `front` unused columns."""
        moved = self._cache.repack(slots, self._growth(), front)
        self._rows = [self._rows[slot] for slot in slots]
        self._state = self._state[:, torch.tensor(slots, device=self._device)]
        self._state[4] += moved
        for row in self._rows:
            if row:
                row.start += moved


def _longest_first(rows: Sequence[Row]) -> deque[Row]:
    """Rows in the order in which they are seated: then a newcomer is seldom longer than the cache, and padding is little."""
    return deque(sorted(rows, key=lambda row: -len(row.ids)))


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Tensor:
    """Returns token rows as one tensor (rows, longest), padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
