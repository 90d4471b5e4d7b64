"""One interface to everything that generates: token ids in, completions out as they finish.

An engine knows nothing of chat templates, examples or tasks; `chat` makes its prompts and reads its text. The names below
are what every engine speaks. Which one a run gets, and whether it can be had: `engines.choice`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dgr_lightning.models.pairs import Pair

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
    """What an engine made of a request.

    Attributes:
        key: the request's.
        token_ids: the new tokens, without the stop token.
        text: the same decoded, control tokens kept, end tokens and padding behind it cut.
        finish_reason: `stop` or `length`.
    """

    key: str
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str


class Decoder(Protocol):
    """What an engine needs of a tokenizer; `chat.Chat` is one.

    Attributes:
        pad_id: any token of the vocabulary.
    """

    pad_id: int

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, control tokens kept; end tokens and padding behind the text are cut."""
        ...


class Engine(Protocol):
    """What refinement, evaluation, probes and shift ask of an engine."""

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        Args:
            requests: may be longer than memory: the next one is asked for when there is room for it, never before. A None says
                that nothing more is to be had until something that is under way has been yielded, so that a request may
                depend on an earlier completion without draining the batch; it comes only while something is under way.
            sampling: how all of them are sampled.
        """
        ...

    def score(self, pairs: Sequence[Pair]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        It may be called between two completions of a `generate` that goes on afterwards.
        """
        ...

    def close(self) -> None:
        """Gives back what the engine holds: memory of a device, processes, connections. It is not used afterwards."""
        ...
