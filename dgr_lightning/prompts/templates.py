"""The prompts that ask the target model to write: text files, which a user's file replaces.

DGR (arXiv 2602.02136) publishes one line of its wording, "Express this reasoning in your own words:"; ThinkSafe (arXiv
2601.23143) its steering text, which is shipped as it is; the rest is ours. Templates are Jinja2 in a sandbox, with limits
(`rendering`). Questions, traces and answers enter them as values, so nothing that a model or a dataset wrote is ever evaluated
as a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dgr_lightning.errors import UserError, one_line
from dgr_lightning.prompts import rendering
from dgr_lightning.text_files import read_text_file

TRACE = "trace"
ANSWER = "answer"
RESPONSE = "response"

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class RewritingTemplate:
    """One checked template.

    Attributes:
        name: names the template in the generation hash and in the dataset card, such as `dgr_trace`.
        text: the Jinja2 source; part of the generation hash.
        placeholders: the variables that it is given, of `question`, `trace` and `answer`.
        place: the override that names it, with which messages begin; empty for one that lies in code.
    """

    name: str
    text: str
    placeholders: tuple[str, ...]
    place: str = ""

    def render(self, *, question: str, trace: str, answer: str) -> str:
        """Returns the rewriting prompt; give an empty string for a text that the prompt should not show.

        Raises:
            UserError: the template fails on these texts, or exceeds a limit.
        """
        values = {"question": question, "trace": trace, "answer": answer}
        given = {name: values[name] for name in self.placeholders}
        try:
            return rendering.render(self.text, given)
        except rendering.RenderingFailure as failure:
            name, text = next(((name, text) for name, text in given.items() if text), ("text", ""))
            raise UserError(
                f"{self.place or f'the template {self.name}'}: {failure}, for the {name} that begins {one_line(text, 40)!r}. "
                "Write a template that only shows its placeholders, or leave that row out."
            ) from failure


@dataclass(frozen=True)
class TemplateFile:
    """Where a template comes from, and what it has to show.

    Attributes:
        key: the key that names a user's file, such as `trace_template`.
        shipped: the file that is read where that key is null; its stem is the template's name.
        placeholders: the variables that the template is given, of `question`, `trace` and `answer`.
        required: the one of them that it has to show.
        section: of the config, that the key is in.
    """

    key: str
    shipped: Path
    placeholders: tuple[str, ...]
    required: str
    section: str = "refine"

    def load(self, path: str | None) -> RewritingTemplate:
        """Reads and checks the template.

        Args:
            path: a user's file; None reads the shipped one.

        Raises:
            UserError: the file is missing or not UTF-8 text, is not Jinja2, uses a variable that it is not given, never shows
                the required one, or fails or exceeds a limit when it is rendered. The message names the override and the file.
        """
        file = self.shipped if path is None else Path(path).expanduser()
        place = f"{self.section}.{self.key}={file}"
        text = read_text_file(place, file)
        template = RewritingTemplate(self.shipped.stem, text, self.placeholders, place)
        try:
            used = rendering.variables(text)
        except rendering.RenderingFailure as failure:
            raise UserError(f"{place}: {failure}. {self._advice}") from failure
        if unknown := used - set(self.placeholders):
            given = ", ".join(f"{{{{ {variable} }}}}" for variable in self.placeholders)
            raise UserError(f"{place}: knows no variable {', '.join(sorted(unknown))}; the template is given {given}.")
        if self.required not in used:
            raise UserError(f"{place}: never shows the {self.required}; write {{{{ {self.required} }}}} where it belongs.")
        for question in ("question", ""):
            values = {"question": question, "trace": "trace", "answer": "answer"}
            try:
                rendering.render(text, {name: values[name] for name in self.placeholders})
            except rendering.RenderingFailure as failure:
                raise UserError(f"{place}: {failure}. {self._advice}") from failure
        return template

    @property
    def _advice(self) -> str:
        return (
            f"Write one that shows its placeholders, such as {{{{ {self.required} }}}}, and little else, or "
            f"{self.section}.{self.key}=null for the shipped one."
        )
