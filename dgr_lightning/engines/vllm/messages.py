"""Messages between an engine and the processes that run vLLM: lists of these, pickled.

Over the socket of a `VllmProcess`, the parent's first message is a `Setup`; the worker answers `Ready` or `Refused`. Then each
side sends what it has, in lists, until the parent closes the socket. Request ids are the parent's, unique in the life of an
engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from dgr_lightning.engines.engine import Request, Sampling, noise_stream


@dataclass(frozen=True)
class Setup:
    """The engine that a worker runs: arguments of vLLM's `EngineArgs`, and `cpu` or `cuda`."""

    arguments: dict[str, Any]
    device: str


@dataclass(frozen=True)
class Ready:
    """The engine runs.

    Attributes:
        max_length: tokens that a sequence may have.
        batch_size: sequences that it decodes together.
    """

    max_length: int
    batch_size: int


@dataclass(frozen=True)
class Refused:
    """The engine did not start, with vLLM's reason, and the worker ends.

    Attributes:
        reason: vLLM's message.
        is_user_error: settings, memory or the model are to blame, not the program.
    """

    reason: str
    is_user_error: bool


@dataclass(frozen=True)
class Generate:
    """A prompt to complete; `stream` is the request's stream of noise, a signed 64-bit integer."""

    request_id: int
    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    stop_ids: Sequence[int]
    stream: int
    top_k: int = 0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, request_id: int, request: Request, budget: int, sampling: Sampling) -> Self:
        """Returns the message for a request that may generate `budget` tokens."""
        return cls(
            request_id,
            request.prompt_ids,
            budget,
            sampling.temperature,
            sampling.top_p,
            sampling.stop_ids,
            noise_stream(sampling.seed, request.key),
            sampling.top_k,
            sampling.repetition_penalty,
        )


@dataclass(frozen=True)
class Generated:
    """The result of a `Generate`: the new tokens without the stop token, and `stop` or `length`."""

    request_id: int
    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass(frozen=True)
class Score:
    """A prompt and its target in one sequence, to be scored from token `num_prompt` on; neither is empty."""

    request_id: int
    ids: Sequence[int]
    num_prompt: int


@dataclass(frozen=True)
class Scored:
    """The result of a `Score`: the natural-log probability of every token of the target."""

    request_id: int
    log_probabilities: list[float]


@dataclass(frozen=True)
class Drop:
    """Requests whose results are no longer wanted."""

    request_ids: Sequence[int]


VllmRequest = Generate | Score
VllmResult = Generated | Scored
