"""Comparisons that may be undecided: True, False, or None where something cannot be read."""

from __future__ import annotations

from collections.abc import Sequence


def all_same(results: Sequence[bool | None]) -> bool | None:
    """Returns whether all of several comparisons hold: False if one fails, else None if one is undecided."""
    return False if False in results else None if None in results else True
