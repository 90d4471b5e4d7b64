"""Decoding steps of fixed shapes that need no word from the host: on CUDA recorded once as a graph, and replayed.

Step by step, a small batch leaves a GPU idle: Python launches some thousand kernels for a token, and waits for the token before
it launches the next ones. Here the state of every slot, the column that is written next and the tokens that were found stay on
the device. The host looks at them after a block of steps; what a row has generated behind its end is dropped.

Shapes are fixed by attending to every column that the cache has, where a mask leaves out those that are not in use. The one
thing that a fixed shape cannot do is to sort a whole vocabulary where a row's nucleus is wider than the shortlist of
`sampling`: the block then ends before that step, which the caller makes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from dgr_lightning.engines.engine import Sampling
from dgr_lightning.engines.sampling import sample_from_shortlist, uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.engines.transformers.kv_cache import KeyValueCache
    from dgr_lightning.engines.transformers.seen_tokens import SeenTokens

BLOCK_STEPS = {"cpu": 1, "cuda": 16}
"""Steps between two looks at what was found. On the CPU a look costs nothing, and a step is as long as its batch needs."""


class StaticSteps:
    """Steps of one batch of slots with one width of the cache; another batch or width needs other ones."""

    def __init__(
        self,
        model: PreTrainedModel,
        cache: KeyValueCache,
        state: torch.Tensor,
        sampling: Sampling,
        last_position: int,
        seen: SeenTokens,
    ) -> None:
        """Records a step, without making one.

        Args:
            model: in evaluation mode and with `grouped_attention` whenever `run` is called.
            cache: of the slots; allocated, and warm: a step has been made with it.
            state: int64 (5, slots): next input token, its position, tokens generated, stream of noise, first column.
            sampling: how tokens are chosen.
            last_position: of the model.
            seen: the tokens of every slot, for a repetition penalty.

        Raises:
            RuntimeError: on CUDA, a step of this model cannot be recorded.
        """
        self._model, self._cache, self._state = model, cache, state
        self._sampling, self._last_position, self._seen = sampling, last_position, seen
        device, num_slots = state.device, state.shape[1]
        self._columns = torch.arange(cache.num_columns, device=device)
        self._column = torch.full((1,), cache.end, device=device)
        self._number = torch.zeros(1, dtype=torch.long, device=device)
        self._taken = torch.ones(num_slots, dtype=torch.bool, device=device)
        # A line a step: the token of every slot, and whether those of taken slots are exact.
        self._found = torch.zeros(max(BLOCK_STEPS.values()), num_slots + 1, dtype=torch.long, device=device)
        self._advance = _recorded(self._step) if device.type == "cuda" else self._step

    def run(self, num_steps: int, taken: Sequence[bool]) -> tuple[list[list[int]], bool]:
        """Makes steps until one would be inexact.

        Args:
            num_steps: at most; the cache has as many free columns.
            taken: whether a slot holds a row.

        Returns:
            The tokens of every slot, step by step, and whether all steps were made.
        """
        before, seen_before = self._state[:3].clone(), self._seen.copy()
        self._column.fill_(self._cache.end)
        self._number.zero_()
        self._taken.copy_(torch.tensor(taken))
        for _ in range(num_steps):
            self._advance()
        found = self._found[:num_steps].tolist()
        num_exact = next((number for number, line in enumerate(found) if not line[-1]), num_steps)
        if num_exact < num_steps:
            self._state[0] = self._found[num_exact - 1, :-1] if num_exact else before[0]
            self._state[1] = (before[1] + num_exact).clamp(max=self._last_position)
            self._state[2] = before[2] + num_exact
            self._seen.restore(seen_before)
            for line in self._found[:num_exact]:
                self._seen.add(line[:-1])
        self._cache.end += num_exact
        return [line[:-1] for line in found[:num_exact]], num_exact == num_steps

    def _step(self) -> None:
        """Makes one step, on the device alone."""
        tokens, positions, num_generated, streams, starts = self._state
        in_use = (self._columns >= starts[:, None]) & (self._columns <= self._column)
        # Under autocast, a copy of a weight that was made outside of the graph would be gone when that is replayed.
        kind = self._state.device.type
        enabled = torch.is_autocast_enabled(kind)
        with (
            self._cache.writing_at(self._column),
            torch.autocast(kind, torch.get_autocast_dtype(kind), enabled, cache_enabled=kind == "cpu"),
        ):
            logits = self._model(
                input_ids=tokens[:, None],
                position_ids=positions[:, None],
                attention_mask=in_use[:, None, None, :],
                past_key_values=self._cache.layers,
                use_cache=True,
            ).logits
        noise, sampling = uniforms(streams, num_generated), self._sampling
        penalised = self._seen.penalise(logits[:, -1])
        chosen, exact = sample_from_shortlist(penalised, sampling.temperature, sampling.top_p, noise, sampling.top_k)
        self._seen.add(chosen)
        exact = (exact | ~self._taken).all(0, keepdim=True)
        self._found.index_copy_(0, self._number, torch.cat([chosen, exact.long()])[None])
        self._state[0] = chosen
        self._state[1:3] += 1
        self._state[1].clamp_(max=self._last_position)
        self._number += 1
        self._column += 1


def _recorded(step: Callable[[], None]) -> Callable[[], None]:
    """Returns the replay of a step on CUDA; other threads, which write checkpoints, may use the device meanwhile."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    replay: Callable[[], None] = graph.replay
    return replay
