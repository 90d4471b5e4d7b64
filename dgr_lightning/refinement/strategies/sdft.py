"""SDFT (arXiv 2402.13669): one instruction with the whole source response as a reference; the model answers for itself."""

from __future__ import annotations

from collections.abc import Sequence

from dgr_lightning.example import Example
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.prompts.templates import ANSWER, SHIPPED, TRACE, TemplateFile
from dgr_lightning.refinement.step import ResponseStep, Step
from dgr_lightning.refinement.strategy import FALLBACK, QUALITY, SAMPLING, Strategy, require_thinking

TEMPLATE = TemplateFile("response_template", SHIPPED / "sdft.jinja", ("question", "trace", "answer"), "answer")


class OwnResponse(ResponseStep):
    """The model answers the question itself, with the source's trace and answer in its prompt as a reference."""

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the instruction with its reference."""
        return self.template.render(question=example.prompt, trace=example.trace, answer=example.answer)

    def reference(self, example: Example) -> str:
        """Returns the source's trace and answer."""
        return f"{example.trace}\n{example.answer}"

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns the model's own trace and answer; an empty trace stays empty."""
        own: dict[str, str | None] = {TRACE: parsed.trace} if example.trace.strip() else {}
        return own | {ANSWER: parsed.answer}


class SDFT(Strategy):
    """Keeps the model's own trace and answer, or the whole original."""

    keys = (*SAMPLING, *QUALITY, "response_template", *FALLBACK)
    templates = (TEMPLATE,)

    def steps(self) -> Sequence[Step]:
        """Returns the one step."""
        return [OwnResponse(self.load(TEMPLATE))]

    def check(self) -> None:
        """Refuses to switch thinking off: the trace would be missing."""
        require_thinking(self.refine)
        super().check()


STRATEGY = SDFT
