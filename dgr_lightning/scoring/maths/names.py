"""What equations name by a side of their own: x, f(x), AB, (x, y)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dgr_lightning.scoring.maths.answer_parts import Leaf, Listed, Part, Relation

_NAME = re.compile(
    r"[A-Za-z](?:_\{?\w+\}?)?'*|\\(?!pi|infty)[a-z]+|[A-Za-z]'*\s*(?:\^\{-1\})?\(\s*[\w,\s]+\s*\)|[A-Z]{2,4}|\\text\{[^{}]*\}"
    r"|(?:m\s*)?\\angle\s*[A-Z]{1,3}|\\(?:overline|text|mathrm|vec|mathbf)\{[^{}]*\}|\|?\\?[A-Za-z]+\|?|\\[a-z]+_\{?\w+\}?"
)


def name_of(part: Part) -> str | None:
    """Returns what an equation names by its left side: x, f(x), AB, (x, y); None for an expression."""
    if isinstance(part, Leaf):
        text = part.text.strip()
        return text.replace(" ", "") if text not in ("e", "i") and _NAME.fullmatch(text) else None
    if isinstance(part, Listed) and part.brackets == "()":
        names = [name_of(item) for item in part.parts]
        return ",".join(name or "" for name in names) if all(names) else None
    return None


def is_name(part: Part) -> bool:
    """Returns whether a part is nothing but a name."""
    return name_of(part) is not None


def names_of(parts: Sequence[Part]) -> list[str] | None:
    """Returns the left sides of parts that are all equations of names; None for others."""
    names = [name_of(part.sides[0]) for part in parts if isinstance(part, Relation) and set(part.signs) <= {"="}]
    return [name for name in names if name] if len(names) == len(parts) and all(names) else None


def without_names(parts: Sequence[Part]) -> list[Part]:
    """Returns parts without the names before them."""
    return [
        part.sides[-1] if isinstance(part, Relation) and set(part.signs) <= {"="} and name_of(part.sides[0]) else part
        for part in parts
    ]
