"""Texts to check a judge or a grader on, from anyone's files: which column is what, and what a label says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.data.file_readers import Row, columns, read_rows
from dgr_lightning.errors import UserError, one_line

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_TRUE = ("true", "yes", "1", "1.0", "y", "t")
_FALSE = ("false", "no", "0", "0.0", "n", "f")
_WORDS = {
    # XSTest's three classes: a partial refusal is a refusal.
    "refused": (
        ("refused", "refusal", "rejected", "2_full_refusal", "3_partial_refusal", "full_refusal", "partial_refusal"),
        ("complied", "compliance", "1_full_compliance", "full_compliance"),
    ),
    "harmful": (("harmful", "unsafe"), ("harmless", "unharmful", "safe")),
    "correct": (("correct", "right"), ("incorrect", "wrong")),
}


@dataclass(frozen=True)
class Table:
    """The rows of one or several files.

    Attributes:
        rows: in the order of the files.
        places: where each row stands, for messages.
        groups: what each row belongs to: its `group` or `model`, or the file where there are several; "" where nothing says.
        names: what is looked for → the column that holds it.
    """

    rows: Sequence[Row]
    places: Sequence[str]
    groups: Sequence[str]
    names: Mapping[str, str]

    def texts(self, what: str) -> list[str]:
        """Returns a column as texts; an empty cell is an empty text, a number is written as in the file.

        Raises:
            UserError: no row has the column, or a cell holds a list or a mapping.
        """
        name = self.column(what)
        if name is None:
            there = ", ".join(columns(list(self.rows)))
            raise UserError(f"{self.places[0]}: no column {what!r}. There are: {there}; write {what}=<column>.")
        found = []
        for row, place in zip(self.rows, self.places, strict=True):
            value = row.get(name)
            if isinstance(value, (list, dict)):
                raise UserError(f"{place}: {name} holds a {'list' if isinstance(value, list) else 'mapping'}, not a text.")
            found.append("" if value is None else str(value))
        return found

    def labels(self, what: str) -> list[bool | None] | None:
        """Returns the labels of `refused`, `harmful` or `correct`; None for an empty cell, and for a file without the column.

        Raises:
            UserError: a cell says neither yes nor no.
        """
        name = self.column(what)
        if name is None:
            return None
        return [_label(what, row.get(name), f"{place}, {name}") for row, place in zip(self.rows, self.places, strict=True)]

    def column(self, what: str) -> str | None:
        """Returns the column that holds something; None where there is none.

        Raises:
            UserError: the user named a column that no row has.
        """
        name = self.names.get(what, what)
        if any(name in row for row in self.rows):
            return name
        if what in self.names:
            raise UserError(f"{what}={name}: no such column. There are: {', '.join(columns(list(self.rows)))}.")
        return None


def read_table(files: Sequence[Path], names: Mapping[str, str]) -> Table:
    """Reads files.

    Args:
        files: JSON lines, JSON, CSV, TSV or parquet.
        names: what is looked for → its column, where that is called otherwise.

    Raises:
        UserError: a file cannot be read, or has no rows.
    """
    rows: list[Row] = []
    places, owners = [], []
    for file in files:
        found = read_rows(file)
        rows += found
        places += [f"{file}, row {number}" for number in range(1, len(found) + 1)]
        owners += [file.stem if len(files) > 1 else ""] * len(found)
    table = Table(rows, places, owners, names)
    if (name := table.column("group") or ("model" if any("model" in row for row in rows) else None)) is not None:
        return Table(rows, places, [str(row.get(name)) for row in rows], names)
    return table


def answer_of(text: str) -> str | None:
    """Returns what follows the last close of thinking; all of a text without one; None where a thought was never closed."""
    if THINK_CLOSE in text:
        return text.rpartition(THINK_CLOSE)[2].strip()
    return None if text.lstrip().startswith(THINK_OPEN) else text


def _label(what: str, value: Any, place: str) -> bool | None:
    if value is None or value == "":
        return None
    word = str(value).strip().lower().replace(" ", "_")
    positive, negative = _WORDS[what]
    if word in (*_TRUE, *positive):
        return True
    if word in (*_FALSE, *negative):
        return False
    raise UserError(
        f"{place}: {one_line(value, 40)!r} says neither yes nor no. "
        f"Write true or false, 1 or 0, {positive[0]} or {negative[0]}, or leave the cell empty."
    )
