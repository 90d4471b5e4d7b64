"""One interface to everything that generates: token ids in, completions out as they finish.

An engine knows nothing of chat templates, examples or tasks: `models.chat` renders prompts and parses texts. Every engine works
with the types below; `engines.registry` says which one a run gets and whether it can run here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dgr_lightning.models.scored_pairs import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STOP = "stop"
LENGTH = "length"


@dataclass(frozen=True)
class Request:
    """One prompt to complete.

    Attributes:
        key: identity of the completion, such as `star1-68/trace/0`; with the stage's seed it fixes the sampling noise.
        prompt_ids: the whole prompt, special tokens included.
        max_new_tokens: limit of this one alone; None: that of the sampling.
    """

    key: str
    prompt_ids: Sequence[int]
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Sampling:
    """How to sample: first `top_k` of the tokens, 0 for all, then `top_p` of their mass.

    Temperature 0 is greedy; `seed` is the stage's seed; generation ends at any of `stop_ids`. A `repetition_penalty` other than
    1 comes before all of it, and also before a greedy choice: it makes the tokens of prompt and output less probable, as
    `sampling.penalised` says.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    stop_ids: tuple[int, ...]
    top_k: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Completion:
    """The output of an engine for a request.

    Attributes:
        key: the request's.
        token_ids: the new tokens, without the stop token.
        text: the same decoded: control tokens kept, trailing end tokens and padding removed.
        finish_reason: `stop` or `length`.
    """

    key: str
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str


class Decoder(Protocol):
    """The part of a tokenizer that engines need; `models.chat.Chat` has it.

    Attributes:
        pad_id: any token of the vocabulary.
    """

    pad_id: int

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`: control tokens kept, trailing end tokens and padding removed."""
        ...


class ModelText(Decoder, Protocol):
    """What an engine may need to know of a model's text when it is opened: `models.chat.Chat` has it, and so has a guard's.

    Attributes:
        tokenizer: the model's.
        marks: its think marks; none where it has none.
    """

    tokenizer: PreTrainedTokenizerBase
    marks: tuple[str, ...]


class Engine(Protocol):
    """The interface of every engine: for refinement, evaluation, in-training evaluation and shift."""

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        Args:
            requests: may be longer than memory: the next one is taken when the engine has room for it, never before. A None
                means that the next request depends on a completion that has not been yielded yet: the engine goes on with the
                batch and tries again after the next completion. It comes only while something is being generated.
            sampling: how all of them are sampled.
        """
        ...

    def score(self, pairs: Sequence[Pair]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        It may be called between two completions of a `generate` that goes on afterwards.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds: device memory, processes, connections. It is not used afterwards."""
        ...


def noise_stream(seed: int, key: str) -> int:
    """Returns the stream of a request's sampling noise, as a signed 64-bit integer: a BLAKE2b hash of stage seed and key."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), "little", signed=True)
