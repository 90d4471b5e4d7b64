"""Rows that a model's chat format cannot write, found before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dgr_lightning.errors import UserError
from dgr_lightning.example import Example

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

_NAMED = 8


def check_rows(examples: Sequence[Example], chat: Chat) -> None:
    """Checks that the model's style can write every row: now, and not once the set is tokenized for training.

    Raises:
        UserError: naming the rows that it cannot write by id.
    """
    if not chat.thinks:
        _refuse(
            [example.id for example in examples if example.trace.strip()],
            "have a trace, which model.chat_style=none has no place for. Write the model.chat_style that marks thinking, or "
            "take rows without a trace: data.fields.constant_trace= data.fields.answer=<column> reads answers alone.",
        )
    _refuse(
        [example.id for example in examples if chat.spells_mark(example.trace) or chat.spells_mark(example.answer)],
        f"spell out {' or '.join(chat.marks)}, which is how this model marks thinking, in ordinary text. Leave those rows out.",
    )


def first_of(names: Sequence[str]) -> str:
    """Returns the first of some names, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _refuse(ids: Sequence[str], why: str) -> None:
    if ids:
        raise UserError(f"{len(ids)} examples ({first_of(ids)}) {why}")
