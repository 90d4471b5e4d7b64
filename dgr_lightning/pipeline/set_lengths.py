"""How long the examples of a set are in the target's tokens, and whether they fit into `sft.max_length`.

Both can be known before anything is generated. The source's own answers have to fit, whatever the strategy: they are what an
example falls back to, and how likely the source set is to the target is measured on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dgr_lightning.config import Config, SftConfig
from dgr_lightning.console import progress
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.pipeline.row_checks import first_of

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

# From this many examples on, tokenizing takes seconds and shows a progress bar.
_MANY = 1000


@dataclass(frozen=True)
class ExampleLength:
    """Tokens of an example.

    Attributes:
        id: of the example.
        prompt: its rendered prompt.
        trace: the trace alone.
        answer: the answer alone.
        marks: think marks, white space around them, and the end token where it is trained on.
        shortest: tokens that it has when its whole trace is cut, where it is longer than `sft.max_length`.
    """

    id: str
    prompt: int
    trace: int
    answer: int
    marks: int
    shortest: int = 0

    @property
    def whole(self) -> int:
        """Prompt and target."""
        return self.prompt + self.trace + self.answer + self.marks


@dataclass(frozen=True)
class SetLengths:
    """The lengths of a set under a config.

    Attributes:
        examples: in source order.
        max_length: `sft.max_length`.
        cuts_prompts: whether a longer example loses its beginning (`sft.truncate=left`), so that every one fits.
    """

    examples: list[ExampleLength] = field(default_factory=list)
    max_length: int = 0
    cuts_prompts: bool = False

    @property
    def cut(self) -> list[ExampleLength]:
        """The examples that lose tokens to `sft.max_length`."""
        return [example for example in self.examples if example.whole > self.max_length]

    @property
    def too_long(self) -> list[ExampleLength]:
        """The examples that do not fit even with an empty trace."""
        return [] if self.cuts_prompts else [example for example in self.examples if example.shortest > self.max_length]

    @property
    def fitting_length(self) -> int:
        """The smallest `sft.max_length` that all of `too_long` fit into."""
        return max((example.shortest for example in self.examples), default=0)

    def check(self) -> None:
        """Checks that every example can be trained on.

        Raises:
            UserError: naming those that cannot by id, and the `sft.max_length` that would do.
        """
        if not (too_long := self.too_long):
            return
        worst = sorted(too_long, key=lambda example: -example.shortest)
        named = first_of([f"{example.id} ({example.shortest:,})" for example in worst])
        raise UserError(
            f"sft.max_length={self.max_length}: too short for prompt, answer and marks of {len(worst)} of {len(self.examples)} "
            f"examples; with the tokens that they need: {named}. Write sft.max_length={self.fitting_length} or more, or "
            "leave those rows out."
        )


def set_lengths(examples: Sequence[Example], chat: Chat, cfg: Config) -> SetLengths:
    """Returns the lengths of a source set in the target's tokens.

    Args:
        examples: the set.
        chat: of the target model.
        cfg: `sft.max_length`, `sft.truncate` and `sft.append_eos` are read.
    """
    lengths = []
    with progress("measuring lengths", len(examples)) if len(examples) > _MANY else nullcontext() as advance:
        for example in examples:
            lengths.append(_length(example, chat, cfg.sft))
            if advance is not None:
                advance(1)
    return SetLengths(lengths, cfg.sft.max_length, cfg.sft.truncate == "left")


def _length(example: Example, chat: Chat, sft: SftConfig) -> ExampleLength:
    prompt, target = chat.prompt_ids(example.prompt), chat.target_ids(example.trace, example.answer)
    trace, answer = map(len, chat.part_spans(target))
    length = ExampleLength(example.id, len(prompt), trace, answer, len(target) - trace - answer - (not sft.append_eos))
    if length.whole <= sft.max_length:
        return length
    return replace(length, shortest=chat.shortest(example.prompt, example.answer, append_eos=sft.append_eos))
