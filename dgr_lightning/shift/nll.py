"""How far a safety set lies from a model: the distribution gap that DGR (arXiv 2602.02136) holds to be the cause of the tax.

The measure is the negative log-likelihood of trace and answer under the model before tuning, given the chat prompt, in nats per
token. Three figures are taken of an example: `both` is the whole target, exactly the tokens that SFT would train on, marks and
end token included; `trace` and `answer` are the tokens of these texts alone (`Chat.part_spans`), each given all that precedes
it. A set's mean counts every token the same, as the loss of SFT does; its distribution is that of the examples' own means.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgr_lightning.console import progress
from dgr_lightning.engines.engine import Engine
from dgr_lightning.example import Example
from dgr_lightning.files import write_jsonl
from dgr_lightning.statistics.bootstrap import mean_per, spread
from dgr_lightning.statistics.intervals import Estimate

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat, Encoded

PARTS = ("trace", "answer", "both")

# Encoded examples are held until they have so many tokens, and are then scored together: enough for the engine to find batches
# of like length in, and for a long set's memory to stay flat.
_TOKENS_AT_ONCE = 2**16


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of a text: the sum over its tokens in nats, and how many they are."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token; a text without tokens is a ZeroDivisionError."""
        return self.total / self.tokens


@dataclass(frozen=True)
class ExampleNLL:
    """What is measured of one example; a part without text has no tokens."""

    id: str
    trace: NLL
    answer: NLL
    both: NLL


def choose(ids: Sequence[str], limit: int | None) -> frozenset[str]:
    """Returns which examples are measured: `limit` of them by the hash of their ids, all where it is None.

    The choice is the same before and after a refinement, whatever the order; a larger limit holds all of a smaller one's.
    """
    ranked = sorted(ids, key=lambda id_: hashlib.sha256(id_.encode()).digest())
    return frozenset(ranked[:limit])


def nll(engine: Engine, chat: Chat, examples: Iterable[Example], max_length: int) -> Iterator[ExampleNLL]:
    """Yields the NLL of every example, in order; examples are asked for as they are needed, and none is kept.

    Args:
        engine: scores.
        chat: the model's chat format.
        examples: any number.
        max_length: tokens per example; a longer one loses the end of its trace, as in training.

    Raises:
        UserError: an example is too long even without its trace.
    """
    held: list[tuple[str, Encoded]] = []
    num_tokens = 0
    for example in examples:
        encoded = chat.encode(example.prompt, example.trace, example.answer, max_length)
        if held and num_tokens + len(encoded.ids) > _TOKENS_AT_ONCE:
            yield from _score(engine, chat, held)
            held, num_tokens = [], 0
        held.append((example.id, encoded))
        num_tokens += len(encoded.ids)
    if held:
        yield from _score(engine, chat, held)


def measure_nll(
    engine: Engine,
    chat: Chat,
    examples: Iterable[Example],
    num_examples: int,
    max_length: int,
    path: Path,
    label: str = "NLL",
) -> dict[str, Any]:
    """Writes the NLL of every example to a file, a line each, and returns what they come to.

    Args:
        engine: scores.
        chat: the model's chat format.
        examples: those that are measured; read once, streaming.
        num_examples: how many they are.
        max_length: as in `nll`.
        path: JSONL of `ExampleNLL`, under this name when it is whole.
        label: what the progress bar says.

    Returns:
        `examples`: their number; for each of `PARTS` None where no example has a token of it, else `nll` (a measure, nats per
        token), `perplexity` (a measure: its exponential), `tokens`, and `quantiles` and `histogram` of the examples' means.

    Raises:
        UserError: an example is too long even without its trace.
    """
    totals: dict[str, list[float]] = {part: [] for part in PARTS}
    tokens: dict[str, list[int]] = {part: [] for part in PARTS}

    def rows() -> Iterator[dict[str, Any]]:
        with progress(label, num_examples) as advance:
            for measured in nll(engine, chat, examples, max_length):
                for part, value in zip(PARTS, (measured.trace, measured.answer, measured.both), strict=True):
                    totals[part].append(value.total)
                    tokens[part].append(value.tokens)
                yield asdict(measured)
                advance(1)

    write_jsonl(path, rows())
    return {"examples": len(tokens["both"])} | {part: _figures(totals[part], tokens[part]) for part in PARTS}


def _score(engine: Engine, chat: Chat, held: Sequence[tuple[str, Encoded]]) -> Iterator[ExampleNLL]:
    pairs = [(encoded.ids[: encoded.num_prompt], encoded.ids[encoded.num_prompt :]) for _, encoded in held]
    for (id_, _), (_, target), logprobs in zip(held, pairs, engine.score(pairs), strict=True):
        spans = (*chat.part_spans(target), range(len(target)))
        yield ExampleNLL(id_, *(NLL(math.fsum(-logprobs[i] for i in span), len(span)) for span in spans))


def _figures(totals: Sequence[float], tokens: Sequence[int]) -> dict[str, Any] | None:
    means = [total / number for total, number in zip(totals, tokens, strict=True) if number]
    if not means:
        return None
    mean = mean_per(tokens, totals)
    return {"nll": mean.to_json(), "perplexity": _exp(mean).to_json(), "tokens": sum(tokens)} | spread(means)


def _exp(mean: Estimate) -> Estimate:
    value, low, high = (None if end is None else math.exp(end) for end in (mean.value, mean.low, mean.high))
    return Estimate(value, low, high, mean.n)
