"""What `engines.vllm` and its worker processes say to each other: lists of these, pickled, over a socket.

The parent's first message is a `Setup`; the worker answers `Ready` or `Refused`, then each side sends what it has, in batches,
and the parent ends the conversation by closing the socket. Numbers are the parent's, unique in the life of an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setup:
    """The engine that a worker is to run: arguments of vLLM's `EngineArgs`, and `cpu` or `cuda`."""

    arguments: dict[str, Any]
    device: str


@dataclass(frozen=True)
class Ready:
    """The engine runs; a sequence may have `max_length` tokens."""

    max_length: int


@dataclass(frozen=True)
class Refused:
    """There is no engine, and why, in vLLM's words; the worker ends. `mendable`: the settings are to blame, not the program."""

    reason: str
    mendable: bool


@dataclass(frozen=True)
class Generate:
    """A prompt to complete; `stream` is the request's stream of noise, a signed 64-bit integer."""

    number: int
    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    stop_ids: Sequence[int]
    stream: int


@dataclass(frozen=True)
class Generated:
    """What became of it: the new tokens without the stop token, and `stop` or `length`."""

    number: int
    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass(frozen=True)
class Score:
    """A prompt and what follows it, in one, to be scored from token `num_prompt` on; at least one token on either side."""

    number: int
    ids: Sequence[int]
    num_prompt: int


@dataclass(frozen=True)
class Scored:
    """The natural-log probability of every token behind the prompt."""

    number: int
    log_probabilities: list[float]


@dataclass(frozen=True)
class Drop:
    """Nobody waits for these any more."""

    numbers: Sequence[int]


Work = Generate | Score
Done = Generated | Scored
