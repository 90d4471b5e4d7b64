"""How far a safety set lies from a model: the distribution gap that DGR (arXiv 2602.02136) names as the cause of the tax.

It is measured as the negative log-likelihood of trace and answer under the model before tuning, given the chat prompt, in nats
per token. An example has three figures: `both` is the whole target, exactly the tokens that SFT would train on, marks and end
token included; `trace` and `answer` are the tokens of these texts alone (`Chat.part_spans`), each given everything before it.
A set's mean weights every token the same, as the loss of SFT does; its distribution is over the examples' own means.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgr_lightning.console import progress
from dgr_lightning.engines.engine import Engine
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.files import write_jsonl
from dgr_lightning.hashes import sorted_by_hash
from dgr_lightning.statistics.bootstrap import distribution, ratio_of_sums
from dgr_lightning.statistics.intervals import Estimate

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat, Encoded

PARTS = ("trace", "answer", "both")

# Encoded examples are collected up to this many tokens and then scored together: enough for the engine to form batches of
# similar length, and little enough for memory to stay flat over a long set.
_TOKENS_AT_ONCE = 2**16


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of a text: the sum over its tokens in nats, and their number."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token; raises ZeroDivisionError for a text without tokens."""
        return self.total / self.tokens


@dataclass(frozen=True)
class ExampleNLL:
    """The NLL of one example; a part without text has no tokens."""

    id: str
    trace: NLL
    answer: NLL
    both: NLL


def choose_examples(ids: Sequence[str], limit: int | None) -> frozenset[str]:
    """Returns the ids of the examples that are measured: `limit` of them, drawn by hash; all where it is None.

    The draw is the same before and after refinement, whatever the order; a larger limit contains the draw of a smaller one.
    """
    return frozenset(sorted_by_hash(ids, lambda id_: id_)[:limit])


def nll(engine: Engine, chat: Chat, examples: Iterable[Example], max_length: int | None) -> Iterator[ExampleNLL]:
    """Yields the NLL of every example, in order. Examples are read as they are needed, and none is kept.

    Args:
        engine: scores.
        chat: the model's chat format.
        examples: any number; read once.
        max_length: tokens per example; a longer one loses the end of its trace, as in training. None: no limit.

    Raises:
        UserError: an example is too long even without its trace.
    """
    held: list[tuple[str, Encoded]] = []
    num_tokens = 0
    for example in examples:
        try:
            encoded = chat.encode(example.prompt, example.trace, example.answer, max_length or sys.maxsize)
        except UserError as error:
            raise UserError(f"{example.id}: {error}") from error
        if held and num_tokens + len(encoded.ids) > _TOKENS_AT_ONCE:
            yield from _score(engine, chat, held)
            held, num_tokens = [], 0
        held.append((example.id, encoded))
        num_tokens += len(encoded.ids)
    if held:
        yield from _score(engine, chat, held)


def record_nll(measured: Iterable[ExampleNLL], num_examples: int, path: Path, label: str = "NLL") -> dict[str, Any]:
    """Writes the NLL of every example to a file, a line each, and returns the figures of the set.

    Args:
        measured: from `nll`; read once, streaming.
        num_examples: their number, for the progress bar.
        path: JSONL of `ExampleNLL`, under this name only once it is complete.
        label: names the progress bar.

    Returns:
        `examples`: their number; for each of `PARTS` None where no example has a token of it, else `nll` (an estimate, nats per
        token), `perplexity` (an estimate: its exponential), `tokens`, and `quantiles` and `histogram` of the examples' means.
    """
    totals: dict[str, list[float]] = {part: [] for part in PARTS}
    tokens: dict[str, list[int]] = {part: [] for part in PARTS}

    def rows() -> Iterator[dict[str, Any]]:
        with progress(label, num_examples) as advance:
            for example in measured:
                for part, value in zip(PARTS, (example.trace, example.answer, example.both), strict=True):
                    totals[part].append(value.total)
                    tokens[part].append(value.tokens)
                yield asdict(example)
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
    mean = ratio_of_sums(totals, tokens)
    return {"nll": mean.to_json(), "perplexity": _exp(mean).to_json(), "tokens": sum(tokens)} | distribution(means)


def _exp(mean: Estimate) -> Estimate:
    value, low, high = (None if end is None else math.exp(end) for end in (mean.value, mean.low, mean.high))
    return Estimate(value, low, high, mean.n)
