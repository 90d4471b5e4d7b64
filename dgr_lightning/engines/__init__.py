"""One interface to everything that generates: token ids in, completions out as they finish.

An engine knows nothing of chat templates, examples or tasks; `chat` makes its prompts and reads its text. The names below
are what every engine speaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

STOP = "stop"
LENGTH = "length"


@dataclass(frozen=True)
class Request:
    """One prompt to complete.

    Attributes:
        key: identity of the completion, such as `star1-68/trace/0`; with the stage's seed it fixes the sampling noise.
        prompt_ids: the whole prompt, special tokens included.
    """

    key: str
    prompt_ids: Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """How to sample. Temperature 0 is greedy; `seed` is the stage's seed; generation ends at any of `stop_ids`."""

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    stop_ids: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """What an engine made of a request: new tokens without the stop token, and why it ended (`stop` or `length`)."""

    key: str
    token_ids: tuple[int, ...]
    finish_reason: str


class Engine(Protocol):
    """What refinement, evaluation, probes and shift ask of an engine."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish."""
        ...

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order."""
        ...
