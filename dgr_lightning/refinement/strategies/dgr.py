"""DGR (arXiv 2602.02136): the model rewrites the trace in its own words, then the answer, seeing the new trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dgr_lightning.config import RefineConfig
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.prompts.templates import ANSWER, SHIPPED, TRACE, RewritingTemplate, TemplateFile
from dgr_lightning.refinement.quality import repeated
from dgr_lightning.refinement.step import Step
from dgr_lightning.refinement.strategy import FALLBACK, QUALITY, SAMPLING, Strategy

TEMPLATES = {
    TRACE: TemplateFile("trace_template", SHIPPED / "dgr_trace.jinja", ("question", "trace"), "trace"),
    ANSWER: TemplateFile("answer_template", SHIPPED / "dgr_answer.jinja", ("question", "trace", "answer"), "answer"),
}
"""Part → its template."""

REWRITING = (*SAMPLING, *QUALITY, "view", "parts", "trace_template", "answer_template")
"""The keys of `refine` that say how parts are rewritten, for strategies that build on DGR's rewrites."""


@dataclass(frozen=True)
class RewritePart:
    """Asks for one part of the example in the model's own words; all that follows the thinking is kept.

    With `view` `question` the template shows the question and, for the answer, the trace; with `part` the part alone.
    """

    part: str
    template: RewritingTemplate
    view: str

    @property
    def sees_trace(self) -> bool:
        """The prompt for an answer does, unless parts are shown alone."""
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
        """Returns the source's text of the part."""
        return example.trace if self.part == TRACE else example.answer

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns what follows the thinking."""
        return {self.part: parsed.answer}


class DGR(Strategy):
    """A part that fails quality control takes the whole example back to the original, unless `fallback_unit` is `part`."""

    keys: ClassVar[tuple[str, ...]] = (*REWRITING, "fallback_unit", *FALLBACK)
    templates = tuple(TEMPLATES.values())

    def steps(self) -> Sequence[Step]:
        """Returns one step for each of `refine.parts`, the trace first."""
        parts = [part for part in (TRACE, ANSWER) if part in self.refine.parts]
        return [RewritePart(part, self.load(TEMPLATES[part]), self.refine.view) for part in parts]

    def check(self) -> None:
        """Refuses parts that no example has, and a fallback by part of examples that are dropped whole."""
        check_parts(self.refine)
        if self.refine.fallback_unit == "part" and self.refine.on_failure == "drop":
            raise UserError(
                "refine.fallback_unit=part keeps the original of a part that failed, refine.on_failure=drop keeps no example "
                "with a failed part: write refine.fallback_unit=example, or refine.on_failure=keep."
            )
        super().check()


def check_parts(refine: RefineConfig) -> None:
    """Raises a UserError where `refine.parts` names a part twice, one that no example has, or none."""
    if twice := repeated(refine.parts):
        raise UserError(f"refine.parts: names {', '.join(twice)} more than once; write it once.")
    if not refine.parts or set(refine.parts) - {TRACE, ANSWER}:
        raise UserError(f"refine.parts=[{','.join(refine.parts)}]: expected [trace,answer], [trace] or [answer].")


STRATEGY = DGR
