"""The prompts that ask the target model to write: text files, which a user's file replaces.

DGR (arXiv 2602.02136) publishes one line of its wording, "Express this reasoning in your own words:"; ThinkSafe (arXiv
2601.23143) its steering text, which is shipped as it is; the rest is ours. Templates are Jinja2 in a sandbox. Questions, traces
and answers enter them as values, so nothing that a model or a dataset wrote is ever evaluated as a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.errors import UserError
from dgr_lightning.text_files import read_text_file

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

TRACE = "trace"
ANSWER = "answer"
RESPONSE = "response"

SHIPPED = Path(__file__).parent


@cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined)


@dataclass(frozen=True)
class RewritingTemplate:
    """One checked template.

    Attributes:
        name: names the template in the generation hash and in the dataset card, such as `dgr_trace`.
        text: the Jinja2 source; part of the generation hash.
        placeholders: the variables that it is given, of `question`, `trace` and `answer`.
    """

    name: str
    text: str
    placeholders: tuple[str, ...]

    def render(self, *, question: str, trace: str, answer: str) -> str:
        """Returns the rewriting prompt; give an empty string for a text that the prompt should not show."""
        values = {"question": question, "trace": trace, "answer": answer}
        return self._compiled.render({name: values[name] for name in self.placeholders})

    @cached_property
    def _compiled(self) -> Template:
        return _environment().from_string(self.text)


@dataclass(frozen=True)
class TemplateFile:
    """Where a template comes from, and what it has to show.

    Attributes:
        key: the key of `refine` that names a user's file, such as `trace_template`.
        shipped: the file that is read where that key is null; its stem is the template's name.
        placeholders: the variables that the template is given, of `question`, `trace` and `answer`.
        required: the one of them that it has to show.
    """

    key: str
    shipped: Path
    placeholders: tuple[str, ...]
    required: str

    def load(self, path: str | None) -> RewritingTemplate:
        """Reads and checks the template.

        Args:
            path: a user's file; None reads the shipped one.

        Raises:
            UserError: the file is missing or not UTF-8 text, is not Jinja2, uses a variable that it is not given, never shows
                the required one, or fails when rendered. The message names the override and the file.
        """
        from jinja2 import TemplateError, TemplateSyntaxError, meta

        file = self.shipped if path is None else Path(path).expanduser()
        place = f"refine.{self.key}={file}"
        text = read_text_file(place, file)
        try:
            used = meta.find_undeclared_variables(_environment().parse(text))
        except TemplateSyntaxError as error:
            raise UserError(f"{place}, line {error.lineno}: not a Jinja2 template ({error.message}).") from error
        if unknown := used - set(self.placeholders):
            given = ", ".join(f"{{{{ {variable} }}}}" for variable in self.placeholders)
            raise UserError(f"{place}: knows no variable {', '.join(sorted(unknown))}; the template is given {given}.")
        if self.required not in used:
            raise UserError(f"{place}: never shows the {self.required}; write {{{{ {self.required} }}}} where it belongs.")
        template = RewritingTemplate(self.shipped.stem, text, self.placeholders)
        for question in ("question", ""):
            try:
                template.render(question=question, trace="trace", answer="answer")
            except (TemplateError, TypeError, ValueError, ArithmeticError, OverflowError) as error:
                raise UserError(f"{place}: fails when it is rendered ({error}).") from error
        return template
