"""The record of its chat format in an exported model's folder, `dgr_chat.json`, so that the folder says how it was trained.

transformers and vLLM do not read it. What the user gives (`model.chat_style` and so on) counts before what is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from dgr_lightning.json_text import parse_json
from dgr_lightning.models.folder import CHAT_RECORD
from dgr_lightning.models.thinking import AUTO, STYLES, check_marks


@dataclass(frozen=True)
class ChatRecord:
    """What a folder records of its chat format; the defaults stand for what it does not record.

    Attributes:
        chat_style: of `thinking.STYLES`; `auto` where no style is recorded.
        think_marks: opening and closing mark of the style `marks`.
        system_prompt: the system message before every prompt.
        template_args: arguments of the chat template.
    """

    chat_style: str = AUTO
    think_marks: list[str] | None = None
    system_prompt: str | None = None
    template_args: dict[str, Any] = field(default_factory=dict)


def write_record(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes `Chat.identity` into a model's folder."""
    write_json(folder / CHAT_RECORD, dict(identity))


def read_record(folder: Path) -> ChatRecord:
    """Returns the record in a model's folder; one of defaults alone where there is none.

    Raises:
        UserError: the file is not such a record.
    """
    file = folder / CHAT_RECORD
    if not file.is_file():
        return ChatRecord()
    try:
        record = ChatRecord(**parse_json(file.read_text(encoding="utf-8")))
        text_or_null, marks = isinstance(record.system_prompt, str | None), record.think_marks
        valid = record.chat_style in STYLES and text_or_null and isinstance(record.template_args, dict)
        valid = valid and (marks is None or (isinstance(marks, list) and all(isinstance(mark, str) for mark in marks)))
        if valid:
            check_marks(record.chat_style, marks)
    except (OSError, ValueError, TypeError, UserError):
        valid = False
    if not valid:
        raise UserError(
            f"{file}: not the record of a chat format (chat_style, think_marks, system_prompt, template_args). Restore the "
            "exported file, or delete it and write model.chat_style=<style>."
        )
    return record
