"""Sampling for vLLM's CPU build, with the noise of `engines.sampling`.

On GPUs vLLM draws a token's noise from the request's seed and the position, as it should. On a CPU it keeps a generator for
every request, which it cannot rewind when a prompt was read in chunks (release 0.32 then fails with "CPU Generator does not use
offset"), and draws row by row. So on a CPU the token is chosen here, by a logits processor, and vLLM's greedy sampling takes
it: a sampled text is then that of engine=transformers, however batches are composed or rows are preempted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from dgr_lightning.engines.sampling import penalised, sample_tokens, uniforms

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

    from dgr_lightning.engines.vllm.messages import Generate

_ARGUMENT = "noise"


def noise_arguments(request: Generate) -> dict[str, Any]:
    """Returns the `extra_args` of a request that is sampled here; vLLM itself is given a temperature of 0."""
    return {_ARGUMENT: (request.stream, request.temperature, request.top_p, request.top_k, request.repetition_penalty)}


@dataclass
class _SampledRequest:
    """A request in the batch: how to sample it, its prompt, and its generated tokens, a list that vLLM appends to."""

    stream: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    prompt_ids: Sequence[int]
    token_ids: list[int]


class RequestNoise(LogitsProcessor):
    """Chooses the next token of every row that has `noise_arguments`, and makes it the most probable one."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """Starts with an empty batch; vLLM calls this."""
        self._rows: dict[int, _SampledRequest] = {}

    def is_argmax_invariant(self) -> bool:
        """Returns False: this changes the most probable token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Keeps track of the rows as they are added, removed and moved."""
        process_dict_updates(self._rows, batch_update, _sampled_request)

    def apply(self, logits: Tensor) -> Tensor:
        """Returns the logits, (rows, vocabulary), with those of the chosen tokens set to infinity."""
        for index, row in self._rows.items():
            if row.repetition_penalty != 1:
                seen = torch.zeros(1, logits.shape[1], dtype=torch.bool)
                seen[0, torch.tensor([*row.prompt_ids, *row.token_ids])] = True
                logits[index] = penalised(logits[index : index + 1], seen, row.repetition_penalty)[0]
        alike: dict[tuple[float, float, int], list[int]] = defaultdict(list)
        for index, row in self._rows.items():
            alike[row.temperature, row.top_p, row.top_k].append(index)
        for (temperature, top_p, top_k), indices in alike.items():
            rows = [self._rows[index] for index in indices]
            noise = uniforms(torch.tensor([row.stream for row in rows]), torch.tensor([len(row.token_ids) for row in rows]))
            chosen = sample_tokens(logits[indices], temperature, top_p, noise, top_k)
            logits[indices, chosen] = torch.inf
        return logits


def _sampled_request(params: SamplingParams, prompt_ids: list[int] | None, token_ids: list[int]) -> _SampledRequest | None:
    if not params.extra_args or _ARGUMENT not in params.extra_args:
        return None
    stream, temperature, top_p, top_k, penalty = params.extra_args[_ARGUMENT]
    return _SampledRequest(stream, temperature, top_p, top_k, penalty, prompt_ids or (), token_ids)
