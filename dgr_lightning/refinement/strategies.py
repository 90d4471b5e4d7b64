"""Refinement strategies: what the target model is asked for each example, one step after the other, and what is kept of it.

- vanilla: nothing (the baseline of Safety Tax, arXiv 2503.00555).
- dgr (arXiv 2602.02136): the trace is rewritten, then the answer in the light of the new trace.
- sdft (arXiv 2402.13669): one instruction with the whole response as a reference; the model's own trace and answer are kept.
- thinksafe (arXiv 2601.23143): no reference; on a harmful prompt the model is told to refuse, and writes trace and answer.
- filters-only: nothing is generated; quality control judges the source set itself, and what fails is dropped.
- length-matched: dgr, of which as many rewrites or originals are kept as can be paired by length (`length_matching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dgr_lightning.config import RefineConfig
from dgr_lightning.example import HARMFUL, Example
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.prompts.templates import ANSWER, RESPONSE, TRACE, RewritingTemplate, load_template


class Step(Protocol):
    """One thing that the model is asked about every example.

    Attributes:
        part: what it is called in keys, verdicts and reasons: `trace`, `answer`, or `response` for both at once.
        template: what asks for it; part of the generation hash.
        sees_trace: whether its prompt shows the trace that an earlier step wrote.
    """

    @property
    def part(self) -> str: ...  # noqa: D102
    @property
    def template(self) -> RewritingTemplate: ...  # noqa: D102
    @property
    def sees_trace(self) -> bool: ...  # noqa: D102

    def applies(self, example: Example) -> bool:
        """Whether there is anything to ask: an empty trace stays empty."""
        ...

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the prompt; `trace` is the accepted one, the source's where none was rewritten."""
        ...

    def reference(self, example: Example) -> str:
        """Returns what the model was shown of the source, whose own phrases are no fault of a text that keeps them."""
        ...

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns the texts that the step makes of a completion, by part; None where the completion does not have one."""
        ...


@dataclass(frozen=True)
class Rewriting:
    """DGR's step: a part of the example in the model's own words, which are all that follows the thinking.

    With `view` `question` the template is shown the question and, for the answer, the trace; with `part` the part alone.
    """

    part: str
    template: RewritingTemplate
    view: str

    @property
    def sees_trace(self) -> bool:
        """Only an answer does, unless parts are shown alone."""
        return self.part == ANSWER and self.view == "question"

    def applies(self, example: Example) -> bool:
        """Whether the part holds any text."""
        return bool(self.reference(example).strip())

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the rewriting prompt."""
        shown = {"question": example.prompt, TRACE: trace, ANSWER: ""}
        if self.view == "part":
            shown = {"question": "", TRACE: "", ANSWER: ""}
        return self.template.render(**shown | {self.part: self.reference(example)})

    def reference(self, example: Example) -> str:
        """Returns the part that is rewritten."""
        return example.trace if self.part == TRACE else example.answer

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns what follows the thinking."""
        return {self.part: parsed.answer}


@dataclass(frozen=True)
class _Response:
    """A step that asks for trace and answer at once, of every example."""

    template: RewritingTemplate
    part: str = RESPONSE
    sees_trace: bool = False

    def applies(self, example: Example) -> bool:
        """Always."""
        return True


class OwnResponse(_Response):
    """SDFT's step: the model answers the question itself, with trace and answer of the source before its eyes."""

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the instruction with its reference."""
        return self.template.render(question=example.prompt, trace=example.trace, answer=example.answer)

    def reference(self, example: Example) -> str:
        """Returns the source's trace and answer."""
        return f"{example.trace}\n{example.answer}"

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns what was thought and what was answered; an empty trace stays empty."""
        own: dict[str, str | None] = {TRACE: parsed.trace} if example.trace.strip() else {}
        return own | {ANSWER: parsed.answer}


class SteeredResponse(_Response):
    """ThinkSafe's step: the question behind the steering text where it is harmful, the plain question where it is benign."""

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the prompt."""
        if example.label != HARMFUL:
            return example.prompt
        return self.template.render(question=example.prompt, trace="", answer="")

    def reference(self, example: Example) -> str:
        """Returns nothing: the model sees no source."""
        return ""

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns what was thought and what was answered."""
        return {TRACE: parsed.trace, ANSWER: parsed.answer}


def steps(refine: RefineConfig) -> Sequence[Step]:
    """Returns the steps of a strategy; none where nothing is generated.

    Raises:
        UserError: a template cannot be used.
    """
    if refine.strategy in ("dgr", "length-matched"):
        paths = {TRACE: refine.trace_template, ANSWER: refine.answer_template}
        parts = [part for part in (TRACE, ANSWER) if part in refine.parts]
        return [Rewriting(part, load_template(f"dgr_{part}", part, paths[part]), refine.view) for part in parts]
    if refine.strategy == "sdft":
        return [OwnResponse(load_template("sdft", RESPONSE, refine.response_template))]
    if refine.strategy == "thinksafe":
        return [SteeredResponse(load_template("thinksafe", RESPONSE, refine.response_template))]
    return []
