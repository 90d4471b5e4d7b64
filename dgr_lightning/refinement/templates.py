"""The prompts that ask the target model to rewrite: text files, one for the trace and one for the answer.

DGR (arXiv 2602.02136) publishes one line of its wording, "Express this reasoning in your own words:"; the rest of the shipped
templates is ours, and a user's file replaces either. Templates are Jinja2 in a sandbox. Questions, traces and answers enter
them as values, so nothing that a model or a dataset wrote is ever evaluated as a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import SandboxedEnvironment

from dgr_lightning.config import RefineConfig
from dgr_lightning.errors import UserError
from dgr_lightning.text_files import read_shipped

TRACE = "trace"
ANSWER = "answer"

SHIPPED = Path(__file__).parent / "templates"
PLACEHOLDERS = {TRACE: ("question", "trace"), ANSWER: ("question", "trace", "answer")}

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined)


@dataclass(frozen=True)
class RewritingTemplate:
    """One checked template.

    Attributes:
        part: what it asks to rewrite, `trace` or `answer`.
        text: the Jinja2 source; part of the generation hash.
    """

    part: str
    text: str

    def render(self, *, question: str, trace: str, answer: str) -> str:
        """Returns the rewriting prompt; what the template is not to show is given as the empty string."""
        values = {"question": question, "trace": trace, "answer": answer}
        return self._compiled.render({name: values[name] for name in PLACEHOLDERS[self.part]})

    @cached_property
    def _compiled(self) -> Template:
        return _ENVIRONMENT.from_string(self.text)


def load_template(part: str, path: str | None) -> RewritingTemplate:
    """Reads and checks the template of a part.

    Args:
        part: `trace` or `answer`.
        path: a user's file; None takes the shipped one.

    Raises:
        UserError: the file is missing or not UTF-8 text, is not Jinja2, uses a variable that it is not given, never shows the
            part that is to be rewritten, or fails when rendered. The message names the override and the file.
    """
    file = Path(path) if path is not None else SHIPPED / f"dgr_{part}.jinja"
    place = f"refine.{part}_template={file}"
    given = ", ".join(f"{{{{ {name} }}}}" for name in PLACEHOLDERS[part])
    text = read_shipped(place, file)
    try:
        used = meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
    except TemplateSyntaxError as error:
        raise UserError(f"{place}, line {error.lineno}: not a Jinja2 template ({error.message}).") from error
    if unknown := used - set(PLACEHOLDERS[part]):
        raise UserError(f"{place}: knows no variable {', '.join(sorted(unknown))}; the template is given {given}.")
    if part not in used:
        raise UserError(f"{place}: never shows the {part} that is to be rewritten; write {{{{ {part} }}}} where it belongs.")
    template = RewritingTemplate(part, text)
    for question in ("question", ""):
        try:
            template.render(question=question, trace="trace", answer="answer")
        except (TemplateError, TypeError, ValueError, ArithmeticError, OverflowError) as error:
            raise UserError(f"{place}: fails when it is rendered ({error}).") from error
    return template


def load_templates(refine: RefineConfig) -> dict[str, RewritingTemplate]:
    """Returns the checked templates by part; raises as `load_template` does."""
    return {TRACE: load_template(TRACE, refine.trace_template), ANSWER: load_template(ANSWER, refine.answer_template)}
