"""Refinement strategies: which parts of an example are rewritten, one after the other, and what the model is shown for each.

A strategy is a sequence of waves. The requests of a wave are generated together; a later wave may show what an earlier one
accepted. Vanilla (no refinement, the baseline of arXiv 2503.00555) is no wave at all; DGR (arXiv 2602.02136) is the trace,
then the answer in the light of the new trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dgr_lightning.config import RefineConfig
from dgr_lightning.records import Example
from dgr_lightning.refinement.templates import ANSWER, TRACE, RewritingTemplate, load_templates


@dataclass(frozen=True)
class Wave:
    """One part of every example, rewritten together.

    Attributes:
        part: `trace` or `answer`.
        template: what asks for it.
        view: `question` shows the question and, with the answer, the trace; `part` shows the part alone.
    """

    part: str
    template: RewritingTemplate
    view: str

    def prompt(self, example: Example, texts: Mapping[str, str]) -> str | None:
        """Returns the rewriting prompt, or None where there is nothing to rewrite: an empty trace stays empty.

        Args:
            example: the source example.
            texts: trace and answer as accepted so far; the source's where nothing has been accepted.
        """
        source = {TRACE: example.trace, ANSWER: example.answer}
        if not source[self.part].strip():
            return None
        shown = {TRACE: texts[TRACE], ANSWER: "", "question": example.prompt}
        if self.view == "part":
            shown = {TRACE: "", ANSWER: "", "question": ""}
        shown[self.part] = source[self.part]
        return self.template.render(**shown)


def vanilla(refine: RefineConfig) -> tuple[Wave, ...]:
    """Nothing is rewritten."""
    return ()


def dgr(refine: RefineConfig) -> tuple[Wave, ...]:
    """The trace first, then the answer, which is shown the trace that was accepted."""
    templates = load_templates(refine)
    return tuple(Wave(part, templates[part], refine.view) for part in (TRACE, ANSWER))


STRATEGIES: dict[str, Callable[[RefineConfig], tuple[Wave, ...]]] = {"vanilla": vanilla, "dgr": dgr}
