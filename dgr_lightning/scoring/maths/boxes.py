r"""The boxes of a text, `\boxed{…}`: where they stand, what is in them, and which of them are one answer."""

from __future__ import annotations

import re
from typing import NamedTuple


class Box(NamedTuple):
    """`\\boxed{…}`: where it begins and ends, and what is in it; None where it is never closed."""

    start: int
    end: int
    content: str | None


_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[^\s$]+")  # \boxed 5


def boxes_of(text: str) -> list[Box]:
    """Returns the outermost boxes of a text, in order; after one that is never closed there is none."""
    found: list[Box] = []
    position = 0
    while opening := _BOX.search(text, position):
        start, inside = opening.span()
        if not text.startswith("{", inside):
            bare = _BARE.match(text, inside)
            end = bare.end() if bare else inside
            found.append(Box(start, end, text[inside:end].rstrip(".,;") if bare else None))
            position = max(end, inside)
            continue
        depth, end = 0, -1
        for mark in _BRACES.finditer(text, inside):
            depth += {"{": 1, "}": -1}.get(mark[0], 0)  # \{ and \} group nothing
            if depth == 0 and mark[0] == "}":
                end = mark.end()
                break
        if end < 0:
            return [*found, Box(start, len(text), None)]
        found.append(Box(start, end, text[inside + 1 : end - 1].strip()))
        position = end
    return found


_JOINT = re.compile(
    r"(?:[ \t$,;&~]|\\[,;:! ()]|\\q?quad\b|\\text\s*\{\s*(?:,|and|or|,\s*and|,\s*or)?\s*\}|\b(?:and|or)\b|\([a-e]\)"
    r"|[A-Za-z](?:_\{?\w\}?)?\s*=|和|或|、)*"
)


def joined(text: str, boxes: list[Box]) -> str:
    """Returns the last box, and with it those before that nothing but a joint (and, or, a comma) parts from it."""
    contents = [boxes[-1].content or ""]
    for earlier, later in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = text[earlier.end : later.start]
        if len(between) > 60 or not _JOINT.fullmatch(between):
            break
        if earlier.content not in contents:
            contents.insert(0, earlier.content or "")
    return ", ".join(contents)
