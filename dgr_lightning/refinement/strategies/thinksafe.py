"""ThinkSafe (arXiv 2601.23143): no reference; on a harmful prompt the model is told to refuse, and writes trace and answer."""

from __future__ import annotations

from collections.abc import Sequence

from dgr_lightning.errors import UserError
from dgr_lightning.example import HARMFUL, Example
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.prompts.templates import ANSWER, SHIPPED, TRACE, TemplateFile
from dgr_lightning.refinement.step import ResponseStep, Step
from dgr_lightning.refinement.strategy import FALLBACK, QUALITY, SAMPLING, Strategy, require_thinking

TEMPLATE = TemplateFile("response_template", SHIPPED / "thinksafe.jinja", ("question",), "question")


class SteeredResponse(ResponseStep):
    """The question behind the steering text where it is harmful, the plain question where it is not (benign, retention)."""

    def prompt(self, example: Example, trace: str) -> str:
        """Returns the prompt."""
        if example.label != HARMFUL:
            return example.prompt
        return self.template.render(question=example.prompt, trace="", answer="")

    def reference(self, example: Example) -> str:
        """Returns nothing: the model sees no source."""
        return ""

    def kept(self, example: Example, parsed: Parsed) -> dict[str, str | None]:
        """Returns the model's trace and answer."""
        return {TRACE: parsed.trace, ANSWER: parsed.answer}


class ThinkSafe(Strategy):
    """Keeps what the guard, which is the configured judge, approves; the rest is dropped."""

    keys = (*SAMPLING, *QUALITY, "response_template", *FALLBACK)
    templates = (TEMPLATE,)
    uses_guard = True
    needs_thinking = True

    def steps(self) -> Sequence[Step]:
        """Returns the one step."""
        return [SteeredResponse(self.load(TEMPLATE))]

    def check(self) -> None:
        """Refuses to keep originals, and to switch thinking off: in either case the trace would be missing."""
        if self.refine.on_failure == "keep":
            raise UserError("refine.on_failure=keep: thinksafe has no source trace to keep; write refine.on_failure=drop.")
        require_thinking(self.refine)
        super().check()


STRATEGY = ThinkSafe
