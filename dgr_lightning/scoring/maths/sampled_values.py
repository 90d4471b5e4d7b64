"""Whether two expressions have the same values at points that are drawn, and two equations the same up to a factor."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from random import Random

from dgr_lightning.scoring.maths import expressions
from dgr_lightning.scoring.maths.answer_form import normalise
from dgr_lightning.scoring.maths.answer_parts import Leaf, Part, Relation
from dgr_lightning.scoring.maths.arithmetic import Value
from dgr_lightning.scoring.maths.nodes import Expression
from dgr_lightning.scoring.maths.tokens import Unreadable
from dgr_lightning.scoring.maths.written_numbers import rounded


def same_expression(answer: str, gold: str) -> bool | None:
    """Returns whether two expressions have the same values; None where one cannot be read or computed.

    A logarithm without a base may be natural or common, and 1/2x may be 1/(2x): one reading that agrees is enough.
    """
    try:
        left, right = expressions.read(answer), expressions.read(gold)
    except Unreadable:
        return None
    first = _agree(left, right, answer, gold)
    if first is not False:
        return first
    for log, tight in ((True, False), (False, True)):
        if ("log" if log else "slash") in left.marks | right.marks:
            lefts = [left, expressions.read(answer, log, tight)]
            rights = [right, expressions.read(gold, log, tight)]
            if any(_agree(a, g, answer, gold) for a in lefts for g in rights):
                return True
    if ("°" in answer) != ("°" in gold) or "%" in answer or "%" in gold:
        plain = [text.replace("°", "").replace("%", "") for text in (answer, gold)]
        if not any(function in answer + gold for function in ("\\sin", "\\cos", "\\tan")):
            return _agree(expressions.read(plain[0]), expressions.read(plain[1]), *plain)
    return False


NUM_POINTS = 3
"""At so many points of their variables expressions have to agree."""


def _agree(left: Expression, right: Expression, answer: str, gold: str) -> bool | None:
    symbols = sorted(left.symbols | right.symbols)
    if not symbols:
        try:
            target = right.node({})
        except (ArithmeticError, ValueError, TypeError):
            return None
        try:
            value = left.node({})
        except (ArithmeticError, ValueError, TypeError):
            return False
        return _equal(value, target, 1e-10) or rounded(normalise(answer), value, normalise(gold), target)
    signs = "abs" in left.marks | right.marks
    random, agreed, missing = Random(0), 0, 0
    for attempt in range(3 * NUM_POINTS):
        point = {name: _drawn(random, signs and attempt % 2 == 1) for name in symbols}
        try:
            target = right.node(point)
        except (ArithmeticError, ValueError, TypeError):
            continue
        try:
            value = left.node(point)
        except (ArithmeticError, ValueError, TypeError):
            missing += 1
            continue
        if not _equal(value, target, 1e-8):
            return False
        agreed += 1
        if agreed == NUM_POINTS:
            return True
    return False if missing else None


def _drawn(random: Random, negative: bool) -> complex:
    value = random.uniform(0.4, 2.6)
    return complex(-value if negative else value)


def _equal(value: Value, target: Value, tolerance: float) -> bool:
    if isinstance(value, Fraction) and isinstance(target, Fraction):
        return value == target
    try:
        a, b = complex(value), complex(target)
    except OverflowError:
        return False
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-14


def factor_between(answer: Relation, gold: Relation) -> float | None:
    """Returns the number by which the difference of an equation's sides is that of another's; None where there is none."""
    try:
        (a, b), (c, d) = ([expressions.read(_text(side)) for side in relation.sides] for relation in (answer, gold))
    except (Unreadable, ValueError):
        return None
    symbols = sorted(set().union(*(side.symbols for side in (a, b, c, d))))
    random, ratios = Random(1), []
    for _ in range(2 * NUM_POINTS):
        point = {name: _drawn(random, False) for name in symbols}
        try:
            ratios.append(_difference(a, b, point) / _difference(c, d, point))
        except (ArithmeticError, ValueError, TypeError):
            continue
        if not _equal(ratios[-1], ratios[0], 1e-7) or abs(ratios[0]) < 1e-12:
            return None
        if len(ratios) == NUM_POINTS:
            return ratios[0].real if symbols else None
    return None


def _difference(left: Expression, right: Expression, point: Mapping[str, Value]) -> complex:
    return complex(left.node(point)) - complex(right.node(point))


def _text(part: Part) -> str:
    if isinstance(part, Leaf):
        return part.text
    raise Unreadable("not one expression")
