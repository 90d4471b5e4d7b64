r"""Reads what a final answer is made of: a list, a set, a tuple or interval, a matrix, relations, or one expression.

Texts are in the form of `answer_form.plain_latex`. Nothing is computed here; `equivalence` compares the parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from dgr_lightning.scoring.maths.answer_form import without_braces


@dataclass(frozen=True)
class Leaf:
    """One expression, or words."""

    text: str


@dataclass(frozen=True)
class Listed:
    """Several parts.

    Attributes:
        parts: in order.
        brackets: `""` for a bare list, `\\{\\}` for a set, else the two marks of a tuple or interval: `()`, `[)`, `<>`.
        joint: between the parts of a bare list, where all are the same: `,`, `and`, `or`; `cup` and `setminus` of sets.
    """

    parts: tuple[Part, ...]
    brackets: str = ""
    joint: str = ","


@dataclass(frozen=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True)
class Scaled:
    """A factor before a tuple or a matrix: `-(1, 2)`."""

    factor: str
    part: Part


@dataclass(frozen=True)
class Relation:
    """Sides with signs between them: `x = 5`, `-2 < x \\le 7`; `≈` is a sign `=` whose `exact` is False."""

    sides: tuple[Part, ...]
    signs: tuple[str, ...]
    exact: bool = True


Part = Leaf | Listed | Matrix | Scaled | Relation

MAX_PARTS = 64
"""Parts of a list; a text with more is one leaf."""

MAX_NESTING = 12


def read_parts(text: str, depth: int = 0) -> Part:
    """Returns what a text is made of."""
    text = _unwrapped(text)
    if depth > MAX_NESTING:
        return Leaf(text)
    joints, pieces = _split(_JOINTS.sub(r" \\\1 ", text), _LIST)
    pieces = [piece for piece in pieces if piece.strip()]
    if len(pieces) > 1 and len(pieces) <= MAX_PARTS:
        # "a, b and c" is one list; only a list of nothing but "or" says that it is a choice of conditions.
        words = {joint.strip("\\ ") for joint in joints} - {",", ";"}
        return Listed(tuple(_both_signs(pieces, depth)), joint=words.pop() if len(words) == 1 else ",")
    text = pieces[0].strip() if pieces else text
    if "\\pm" in text and len(signed := _both_signs([text], depth)) > 1:
        return Listed(tuple(signed))
    return _without_joints(text, depth)


def _without_joints(text: str, depth: int) -> Part:
    signs, sides = _split(text, _SIGNS)
    if signs:
        kinds = [_SIGN_NAMES.get(sign, sign) for sign in signs]
        if not sides[0].strip():  # "\approx 2.7"
            sides, kinds = sides[1:], kinds[1:]
        if not kinds:
            return read_parts(sides[0], depth + 1)
        exact = not any(sign in _ABOUT for sign in signs)
        return Relation(tuple(read_parts(side, depth + 1) for side in sides), tuple(kinds), exact)
    for sign in (r"\cup", r"\setminus"):
        found, pieces = _split(text, re.compile(re.escape(sign) + "(?![A-Za-z])"))
        if found:
            return Listed(tuple(read_parts(piece, depth + 1) for piece in pieces), joint=sign[1:])
    return _bracketed(text, depth) or Leaf(text)


def _bracketed(text: str, depth: int) -> Part | None:
    """Returns a set, tuple, interval or matrix, with what stands before it; None for a text that is none of them."""
    text = _BRACKETED_MATRIX.sub(r"\1", text)
    if matrix := _MATRIX.search(text):
        part: Part = _matrix(matrix[2], depth)
        return _scaled(text[: matrix.start()], part) if matrix.end() == len(text) else None
    opening = _first_opening(text)
    if opening is None:
        return None
    start, inside, end, brackets = opening
    if end != len(text):
        return None
    _, pieces = _split(inside, _COMMAS)
    if brackets == r"\{\}":
        if start:
            return None
        builder = _BUILDER.match(inside)
        if builder:
            return read_parts(builder[1], depth + 1)
        return Listed(tuple(_both_signs([piece for piece in pieces if piece.strip()], depth)), brackets)
    if len(pieces) < 2 or len(pieces) > MAX_PARTS:
        return None
    return _scaled(text[:start], Listed(tuple(read_parts(piece, depth + 1) for piece in pieces), brackets))


def _scaled(factor: str, part: Part) -> Part | None:
    factor = factor.strip().removesuffix("\\cdot").strip()
    if not factor:
        return part
    # f(1, 2) is no multiple.
    return Scaled(factor, part) if re.fullmatch(r"[-+]|[-+]?\s*(?:[\d.]|\\frac|\\sqrt).*", factor) else None


def _matrix(inside: str, depth: int) -> Matrix:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![A-Za-z])", inside.replace("\\hline", "")) if row.strip()]
    return Matrix(tuple(tuple(read_parts(entry, depth + 1) for entry in row.split("&")) for row in rows))


def _both_signs(pieces: Sequence[str], depth: int) -> list[Part]:
    """Returns the parts of pieces, two for one with ±: independent signs, or tied ones where there is a ∓ as well."""
    parts = []
    for piece in pieces:
        count = len(_PLUS_MINUS.findall(piece))
        if not 0 < count <= 3:
            parts.append(read_parts(piece, depth + 1) if depth <= MAX_NESTING else Leaf(piece))
            continue
        tied = r"\mp" in piece
        for signs in [("+",) * count, ("-",) * count] if tied else product("+-", repeat=count):
            remaining = iter(signs)
            upper = _PLUS_MINUS.sub(lambda found, signs=remaining: _sign(found[0], next(signs)), piece)  # type: ignore[misc]
            parts.append(read_parts(upper, depth + 1))
    return parts


def _sign(mark: str, upper: str) -> str:
    return upper if mark == r"\pm" else {"+": "-", "-": "+"}[upper]


_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])")
_JOINTS = re.compile(r"(?:\\text\{\s*,?\s*(?=(?:and|or)\s*,?\s*\}))?(?<![A-Za-z\\])(and|or)(?![A-Za-z])(?:\s*,?\s*\})?")
_LIST = re.compile(r"\\(?:and|or|lor|land|vee|wedge)(?![A-Za-z])|[,;]")
_COMMAS = re.compile("[,;]")
_SIGN_NAMES = {
    "\\le": "<=", "\\ge": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\approx": "=", "\\equiv": "=", "\\simeq": "=",
    "\\doteq": "=", "\\in": "in", "\\to": "=", "\\rightarrow": "=", "\\sim": "=", "\\iff": "=", "==": "=",
}  # fmt: skip
_ABOUT = ("\\approx", "\\simeq", "\\doteq", "\\sim")
_SIGNS = re.compile(r"\\(?:le|ge|lt|gt|ne|approx|equiv|simeq|doteq|in|sim)(?![A-Za-z])|<=|>=|(?<![\w)}])!=|==|[=<>]")
_MATRIX = re.compile(r"\\begin\{((?:[pbBvV]|small)?matrix|array)\}(?:\{[^{}]*\})?(.*?)\\end\{\1\}", re.DOTALL)
_BRACKETED_MATRIX = re.compile(r"^[\[(]\s*(\\begin\{array\}(?:(?!\\begin).)*\\end\{array\})\s*[\])]$", re.DOTALL)
_BUILDER = re.compile(r"^\s*[a-z](?:\s*\\in\s*\\mathbb\{R\})?\s*(?:\\mid|\||:)(.+)$", re.DOTALL)
_BRACKETS = {"(": "(", "[": "[", r"\langle": "<", r"\{": r"\{", ")": ")", "]": "]", r"\rangle": ">", r"\}": r"\}"}
_MARK = re.compile(r"\\begin\{|\\end\{|\\[A-Za-z]+|\\.|[()\[\]{}]")


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Returns the separators outside of all brackets, and the pieces between them."""
    depth, marks = 0, iter(_MARK.finditer(text))
    closed: list[tuple[int, int]] = []  # where the text is inside a bracket
    start = 0
    for mark in marks:
        change = _depth_change(mark[0])
        if change > 0 and depth == 0:
            start = mark.start()
        depth = max(0, depth + change)
        if change < 0 and depth == 0:
            closed.append((start, mark.end()))
    if depth:
        closed.append((start, len(text)))
    separators, pieces, last, span = [], [], 0, 0
    for found in separator.finditer(text):
        while span < len(closed) and closed[span][1] <= found.start():
            span += 1
        if span < len(closed) and closed[span][0] <= found.start():
            continue
        separators.append(found[0])
        pieces.append(text[last : found.start()])
        last = found.end()
    return separators, [*pieces, text[last:]]


def _depth_change(mark: str) -> int:
    if mark in ("(", "[", "{", r"\{", r"\langle", r"\begin{"):
        # \begin{ opens twice, since the brace of its name closes once; \end{…} closes what is left.
        return 2 if mark == r"\begin{" else 1
    return -1 if mark in (")", "]", "}", r"\}", r"\rangle") else 0


def _first_opening(text: str) -> tuple[int, str, int, str] | None:
    """Returns where the first bracket stands, what is in it, where it ends and its two marks; braces are no brackets."""
    depth, opened = 0, None
    for mark in _MARK.finditer(text):
        change = _depth_change(mark[0])
        if opened is None:
            if change > 0 and mark[0] in _BRACKETS and depth == 0:
                opened = mark
                depth = 1
            elif mark[0] in ("{", "}"):
                depth += change
            continue
        depth += change
        if depth == 0:
            return (
                opened.start(),
                text[opened.end() : mark.start()],
                mark.end(),
                _BRACKETS[opened[0]] + _BRACKETS.get(mark[0], ")"),
            )
    return None


def _unwrapped(text: str) -> str:
    """Returns a text without blanks, full stops and braces around it."""
    return without_braces(text.strip().rstrip(".").strip())


def vector(matrix: Matrix) -> list[Part]:
    """Returns the entries of a matrix of one column or one row; none of another."""
    lengths = shape(matrix)
    return [entry for row in matrix.rows for entry in row] if len(lengths) == 1 or set(lengths) == {1} else []


def shape(matrix: Matrix) -> list[int]:
    """Returns how many entries each row of a matrix has."""
    return [len(row) for row in matrix.rows]


def multiplied(part: Part) -> Part:
    """Returns a tuple or matrix with the factor before it in each entry."""
    if not isinstance(part, Scaled):
        return part
    inner = multiplied(part.part)

    def times(entry: Part) -> Part:
        factor = part.factor if part.factor not in ("-", "+") else f"{part.factor}1"
        return Leaf(f"({factor})({entry.text})") if isinstance(entry, Leaf) else Scaled(part.factor, entry)

    if isinstance(inner, Listed):
        return Listed(tuple(times(entry) for entry in inner.parts), inner.brackets, inner.joint)
    if isinstance(inner, Matrix):
        return Matrix(tuple(tuple(times(entry) for entry in row) for row in inner.rows))
    return part
