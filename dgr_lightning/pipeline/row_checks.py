"""Rows that a model's chat format cannot write, found before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dgr_lightning.errors import UserError
from dgr_lightning.example import Example

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat


def check_rows(examples: Sequence[Example], chat: Chat) -> None:
    """Refuses rows that the model's style cannot write: now, and not once the set is tokenized for training."""
    for example in examples:
        try:
            if not chat.thinks:
                chat.target_ids(example.trace, "")
            if chat.spells_mark(example.trace) or chat.spells_mark(example.answer):
                raise UserError(
                    f"it spells out {' or '.join(chat.marks)}, which is how this model marks thinking, in ordinary text. Leave "
                    "that row out of data.path."
                )
        except UserError as error:
            raise UserError(f"{example.id}: {error}") from error
