"""The steps of a strategy: each prompts the target model once about every example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dgr_lightning.example import Example
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.prompts.templates import RESPONSE, RewritingTemplate


class Step(Protocol):
    """One question to the model about every example.

    Attributes:
        part: names the step in keys, verdicts and fallback reasons: `trace`, `answer`, or `response` for both at once.
        template: asks the question; part of the generation hash.
        sees_trace: whether its prompt shows the trace that an earlier step wrote.
    """

    @property
    def part(self) -> str: ...  # noqa: D102
    @property
    def template(self) -> RewritingTemplate: ...  # noqa: D102
    @property
    def sees_trace(self) -> bool: ...  # noqa: D102

    def applies(self, example: Example) -> bool:
        """Whether the example has anything to ask about: an empty trace stays empty."""
        ...

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the prompt; `trace` is the accepted one, or the source's where none was rewritten."""
        ...

    def reference(self, example: Example) -> str:
        """Returns the source text that the prompt shows: a rewrite may repeat its meta-thinking phrases without fault."""
        ...

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns the texts to keep of a completion, by part; None for a part that the completion lacks."""
        ...


@dataclass(frozen=True)
class ResponseStep:
    """Base of steps that ask for trace and answer in one completion."""

    template: RewritingTemplate
    part: str = RESPONSE
    sees_trace: bool = False

    def applies(self, example: Example) -> bool:
        """Always: every example has a question."""
        return True
