"""The template of a judge behind an endpoint: a shipped one by its name, or a text file of the user's."""

from __future__ import annotations

import re
from pathlib import Path

from dgr_lightning.prompts.templates import SHIPPED
from dgr_lightning.text_files import read_text_file

DEFAULT = "judge_chat"
SHIPPED_TEMPLATES = {name: SHIPPED / f"{file}.jinja" for name, file in ((DEFAULT, DEFAULT), ("xstest", "judge_xstest"))}

MARKS = re.compile(r"<\s*/?\s*(?:judged_prompt|judged_text)\s*>", re.IGNORECASE)
"""The marks between which the shipped template puts the texts."""


def read_template(name: str | None) -> str:
    """Returns the Jinja2 source of `judge.template`.

    Raises:
        UserError: it is no shipped one, and no text file.
    """
    file = SHIPPED_TEMPLATES.get(name or DEFAULT, Path(name or DEFAULT).expanduser())
    return read_text_file(f"judge.template={name}", file)
