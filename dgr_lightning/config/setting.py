"""A key of the config: its default, its sentence, its range, and what else is to be known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, field
from typing import Any


def setting(
    default: Any,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A config field with its help sentence and what values it takes: low <= value <= high, or above < value, or choices."""
    metadata = {"help": sentence, "low": low, "high": high, "above": above, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def facts(field: Field[Any]) -> Mapping[str, Any]:
    """Returns what `setting` says of a field; for a field that was declared without it, that every value will do."""
    return {"help": "", "low": None, "high": None, "above": None, "choices": None} | dict(field.metadata)
