"""The key-value cache of rows that are decoded together, and attention over it.

All rows write the same column at the same time, so a row that joins late or has a shorter prompt is padded on the left. The
cache is two tensors a layer, written in place and read as a view of the columns in use: a step copies nothing and attends to
nothing beyond what the longest row needs. transformers' StaticCache has as many columns as may ever be needed, and attends to
all of them in every step.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# Share of the device's free memory that the cache may take; the rest is for activations and logits.
_MEMORY_SHARE = 0.8


def free_bytes(device: torch.device) -> int:
    """Returns the memory that a device has left, what torch keeps of it included; without end on the CPU."""
    if device.type == "cpu":
        return sys.maxsize
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


class KeyValueCache:
    """Keys and values of all layers for a number of slots, each of which holds a row or is free.

    Attributes:
        begin: first column in use; the longest row starts there.
        end: the column that is written next.
        num_slots: number of rows that fit.
        num_columns: number of columns that fit; 0 before `allocate`.
        layers: the `past_key_values` of a model.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, num_slots: int, end: int) -> None:
        """Has no memory yet: shapes are known only after the first prefill (`allocate`)."""
        self.begin, self.end = 0, end
        self.num_slots, self.num_columns = num_slots, 0
        self.layers = Cache(layers=[])
        self._dtype, self._device = dtype, device
        self._tensors: list[Tensor] = []
        self._column: Tensor | None = None

    @contextmanager
    def writing_at(self, column: Tensor) -> Iterator[None]:
        """Has `append` write to a column that only the device knows, int64 (1,), and return all columns of the cache."""
        self._column = column
        try:
            yield
        finally:
            self._column = None

    def allocate(self, states: Sequence[Tensor], num_columns: int, min_slots: int) -> None:
        """Allocates the tensors, for fewer slots where the device's memory is not enough, down to `min_slots`.

        Args:
            states: keys and values alternately, layer by layer, each (rows, heads, tokens, head size), for the shapes.
            num_columns: columns to make room for.
            min_slots: slots to allocate whatever memory is free.
        """
        shapes = [(tensor.shape[1], num_columns, tensor.shape[3]) for tensor in states]
        self.num_slots = min(self.num_slots, max(min_slots, self._num_fitting(shapes)))
        # Masked columns must still hold numbers: uninitialised memory may hold NaN, and zero times NaN is NaN.
        self._tensors = [torch.zeros(self.num_slots, *shape, dtype=self._dtype, device=self._device) for shape in shapes]
        self.num_columns = num_columns
        self.layers = Cache(layers=[_Layer(self, 2 * i) for i in range(len(shapes) // 2)])

    def write(self, states: Sequence[Tensor], lengths: Sequence[int], slots: Sequence[int]) -> None:
        """Writes rows so that each ends with the last column in use.

        Args:
            states: as in `allocate`, rows padded on the right.
            lengths: tokens of each row without padding, at most `end`.
            slots: the slot of each row.
        """
        width = max(lengths)
        index = torch.tensor(slots, device=self._device)
        padding = width - torch.tensor(lengths, device=self._device)
        source = (torch.arange(width, device=self._device) - padding[:, None]).clamp(min=0)[:, None, :, None]
        for held, new in zip(self._tensors, states, strict=True):
            aligned = new.gather(2, source.expand(-1, new.shape[1], -1, new.shape[3]))
            held[:, :, self.end - width : self.end].index_copy_(0, index, aligned.to(held.dtype))

    def repack(self, slots: Sequence[int], growth: int, front: int = 0) -> int:
        """Keeps only some slots, in memory of a new width: `front` columns, those in use, room for `growth` more.

        Returns:
            By how many columns everything has moved to the right.
        """
        index = torch.tensor(slots, device=self._device)
        for i, held in enumerate(self._tensors):
            used = held[:, :, self.begin : self.end].index_select(0, index)
            # Layer by layer, so that the old and the new cache never both exist as a whole.
            self._tensors[i] = torch.nn.functional.pad(used, (0, 0, front, growth))
        moved = front - self.begin
        self.begin, self.end = front, self.end + moved
        self.num_slots, self.num_columns = len(slots), self.end + growth
        return moved

    def num_fitting(self, num_columns: int) -> int:
        """Returns how many slots of `num_columns` fit into the device's memory, counting what this cache holds as free."""
        return self._num_fitting([(tensor.shape[1], num_columns, tensor.shape[3]) for tensor in self._tensors])

    def _num_fitting(self, shapes: Sequence[tuple[int, int, int]]) -> int:
        if self._device.type == "cpu":
            return sys.maxsize
        free = free_bytes(self._device) + sum(tensor.nbytes for tensor in self._tensors)
        return int(_MEMORY_SHARE * free) // (sum(math.prod(shape) for shape in shapes) * self._dtype.itemsize)

    def append(self, pair: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the next column of the layer whose keys are tensor `pair`; returns all columns in use with it."""
        held_keys, held_values = self._tensors[pair : pair + 2]
        if self._column is not None:
            held_keys.index_copy_(2, self._column, keys.to(held_keys.dtype))
            held_values.index_copy_(2, self._column, values.to(held_values.dtype))
            return held_keys, held_values
        held_keys[:, :, self.end] = keys[:, :, 0]
        held_values[:, :, self.end] = values[:, :, 0]
        return held_keys[:, :, self.begin : self.end + 1], held_values[:, :, self.begin : self.end + 1]


class _Layer(CacheLayerMixin):
    """One layer of a `KeyValueCache`, as transformers' models see it."""

    is_sliding = False

    def __init__(self, cache: KeyValueCache, pair: int) -> None:
        super().__init__()
        self._cache, self._pair, self.is_initialized = cache, pair, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("allocated before the first step")

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._cache.append(self._pair, key_states, value_states)

    def get_seq_length(self) -> int:
        return self._cache.end - self._cache.begin

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return self._cache.num_columns


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for `AttentionInterface`: transformers' sdpa, without its copies of keys and values in decoding.

    Where there is a mask and several query heads share a key head, transformers repeats keys and values for every query
    head, which for a long cache costs more than the rest of a step. A step has one query a head, so here the heads of a
    group take the place of query positions.

    Args:
        module: the attention layer.
        query: (rows, heads, queries, head size).
        key: (rows, groups, columns, head size).
        value: as `key`.
        attention_mask: boolean (rows, 1, queries, columns), or None: causal, or everything for a single query.
        scaling: factor of the scores.
        kwargs: passed on to transformers' sdpa.

    Returns:
        (rows, queries, heads, head size), and no weights.
    """
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    num_rows, num_heads = query.shape[:2]
    grouped = query.reshape(num_rows, key.shape[1], -1, query.shape[3])
    output = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(num_rows, 1, num_heads, -1), None
