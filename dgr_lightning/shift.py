"""How far a safety set lies from a model: the distribution gap that DGR (arXiv 2602.02136) holds to be the cause of the tax.

The measure is the negative log-likelihood of trace and answer under the model before tuning, given the chat prompt: exactly
the tokens that SFT would train on, marks and end token included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgr_lightning.console import progress
from dgr_lightning.engines import Engine
from dgr_lightning.records import Example

if TYPE_CHECKING:
    from dgr_lightning.chat import Chat

# Between two moves of the progress bar; the engine cuts its own batches.
_EXAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of one example's target: the sum over its tokens in nats, and how many they are."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.total / self.tokens


def nll(engine: Engine, chat: Chat, examples: Sequence[Example], max_length: int, label: str = "NLL") -> list[NLL]:
    """Returns the NLL of every example, in order.

    Args:
        engine: scores.
        chat: the model's chat format.
        examples: any.
        max_length: tokens per example; a longer one loses the end of its trace, as in training.
        label: what the progress bar says.

    Raises:
        UserError: an example is too long even without its trace.
    """
    encoded = [chat.encode(example.prompt, example.trace, example.answer, max_length) for example in examples]
    # Of like length together, so that the engine pads little.
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
    values: dict[int, NLL] = {}
    with progress(label, total=len(encoded)) as advance:
        for begin in range(0, len(order), _EXAMPLES_AT_ONCE):
            chosen = order[begin : begin + _EXAMPLES_AT_ONCE]
            pairs = [(encoded[i].ids[: encoded[i].num_prompt], encoded[i].ids[encoded[i].num_prompt :]) for i in chosen]
            for i, scores in zip(chosen, engine.score(pairs), strict=True):
                values[i] = NLL(-math.fsum(scores), len(scores))
            advance(len(chosen))
    return [values[i] for i in range(len(encoded))]


def mean_nll(engine: Engine, chat: Chat, examples: Sequence[Example], max_length: int, label: str = "NLL") -> float:
    """Returns nats per target token over a whole set: every token counts the same, as in the loss of SFT.

    Args and errors are those of `nll`; a set without examples is a ZeroDivisionError.
    """
    values = nll(engine, chat, examples, max_length, label)
    return math.fsum(value.total for value in values) / sum(value.tokens for value in values)
