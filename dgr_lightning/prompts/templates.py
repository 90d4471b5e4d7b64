"""The prompts that ask the target model to write: text files, which a user's file replaces.

DGR (arXiv 2602.02136) publishes one line of its wording, "Express this reasoning in your own words:"; ThinkSafe (arXiv
2601.23143) its steering text, which is shipped as it is; the rest is ours. Templates are Jinja2 in a sandbox. Questions, traces
and answers enter them as values, so nothing that a model or a dataset wrote is ever evaluated as a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import SandboxedEnvironment

from dgr_lightning.errors import UserError
from dgr_lightning.text_files import read_text_file

TRACE = "trace"
ANSWER = "answer"
RESPONSE = "response"

SHIPPED = Path(__file__).parent
PLACEHOLDERS = {
    "dgr_trace": ("question", "trace"),
    "dgr_answer": ("question", "trace", "answer"),
    "sdft": ("question", "trace", "answer"),
    "thinksafe": ("question",),
}
_REQUIRED = {"dgr_trace": "trace", "dgr_answer": "answer", "sdft": "answer", "thinksafe": "question"}

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined)


@dataclass(frozen=True)
class RewritingTemplate:
    """One checked template.

    Attributes:
        name: `dgr_trace`, `dgr_answer`, `sdft` or `thinksafe`.
        text: the Jinja2 source; part of the generation hash.
    """

    name: str
    text: str

    def render(self, *, question: str, trace: str, answer: str) -> str:
        """Returns the rewriting prompt; what the template is not to show is given as the empty string."""
        values = {"question": question, "trace": trace, "answer": answer}
        return self._compiled.render({name: values[name] for name in PLACEHOLDERS[self.name]})

    @cached_property
    def _compiled(self) -> Template:
        return _ENVIRONMENT.from_string(self.text)


def load_template(name: str, part: str, path: str | None) -> RewritingTemplate:
    """Reads and checks a template.

    Args:
        name: `dgr_trace`, `dgr_answer`, `sdft` or `thinksafe`: which variables it is given.
        part: `trace`, `answer` or `response`: which key of `refine` names a user's file.
        path: a user's file; None takes the shipped one.

    Raises:
        UserError: the file is missing or not UTF-8 text, is not Jinja2, uses a variable that it is not given, never shows what
            it is about, or fails when rendered. The message names the override and the file.
    """
    file = Path(path).expanduser() if path is not None else SHIPPED / f"{name}.jinja"
    place = f"refine.{part}_template={file}"
    given = ", ".join(f"{{{{ {variable} }}}}" for variable in PLACEHOLDERS[name])
    text = read_text_file(place, file)
    try:
        used = meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
    except TemplateSyntaxError as error:
        raise UserError(f"{place}, line {error.lineno}: not a Jinja2 template ({error.message}).") from error
    if unknown := used - set(PLACEHOLDERS[name]):
        raise UserError(f"{place}: knows no variable {', '.join(sorted(unknown))}; the template is given {given}.")
    if (required := _REQUIRED[name]) not in used:
        raise UserError(f"{place}: never shows the {required}; write {{{{ {required} }}}} where it belongs.")
    template = RewritingTemplate(name, text)
    for question in ("question", ""):
        try:
            template.render(question=question, trace="trace", answer="answer")
        except (TemplateError, TypeError, ValueError, ArithmeticError, OverflowError) as error:
            raise UserError(f"{place}: fails when it is rendered ({error}).") from error
    return template
