r"""Sets of real numbers that answers describe in many ways: `[-2,7]`, `-2 \le x \le 7`, `x < 1 or x > 3`, `\mathbb{R}`."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from dgr_lightning.scoring.maths import expressions
from dgr_lightning.scoring.maths.answer_parts import Leaf, Listed, Part, Relation
from dgr_lightning.scoring.maths.tokens import Unreadable


class Interval(NamedTuple):
    """An interval of real numbers; `low_closed` and `high_closed` say whether its ends belong to it."""

    low: float
    low_closed: bool
    high: float
    high_closed: bool


Region = tuple[Interval, ...]
"""Intervals that do not touch, in order."""

EVERYTHING: Region = (Interval(-math.inf, False, math.inf, False),)


def region_of(part: Part) -> Region | None:
    """Returns the set of numbers that a part describes; None where it describes none."""
    if isinstance(part, Leaf):
        return EVERYTHING if _ALL.fullmatch(part.text) else None
    if isinstance(part, Relation):
        return _of_relation(part)
    if isinstance(part, Listed):
        return _of_list(part)
    return None


def is_explicit(part: Part) -> bool:
    """Whether a part can only be a set of numbers, as an inequality or a union of intervals is; `(1, 2)` may be a point."""
    if isinstance(part, Relation):
        return any(sign not in ("=", "in") for sign in part.signs) or part.signs == ("in",)
    if isinstance(part, Listed):
        half_open = part.brackets in ("[)", "(]")
        infinite = any(isinstance(end, Leaf) and "infty" in end.text for end in part.parts)
        return half_open or (part.brackets and infinite) or part.joint in ("cup", "setminus") or (
            not part.brackets and any(is_explicit(item) for item in part.parts)
        )  # fmt: skip
    return isinstance(part, Leaf) and _ALL.fullmatch(part.text) is not None


def same_region(left: Region, right: Region) -> bool:
    """Whether two sets are the same, their ends to nine digits."""
    return len(left) == len(right) and all(
        _close(a.low, b.low) and _close(a.high, b.high) and a.low_closed == b.low_closed and a.high_closed == b.high_closed
        for a, b in zip(left, right, strict=True)
    )


_ALL = re.compile(
    r"\\mathbb\s*\{?R\}?|\\R|\\Reals?|\\text\{\s*(?:all )?reals?(?: numbers?)?\s*\}|(?:all )?real(?: number)?s?|all reals", re.I
)


def _close(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def end_value(part: Part) -> float | None:
    """Returns the value of a number or an infinity; None for any other part."""
    if not isinstance(part, Leaf):
        return None
    if infinite := INFINITY.fullmatch(part.text):
        return -math.inf if infinite[1] == "-" else math.inf
    try:
        value = complex(expressions.read(part.text).node({}))
    except (Unreadable, ArithmeticError, ValueError, KeyError):
        return None
    return value.real if abs(value.imag) < 1e-9 else None


INFINITY = re.compile(r"\s*([+-]?)\s*(?:\\infty|\\text\{\s*(?:infinity|inf)\s*\}|infinity|infty|inf|oo)\s*", re.I)


def _of_list(part: Listed) -> Region | None:
    if part.brackets == r"\{\}":
        points = [end_value(item) for item in part.parts]
        return (
            merged([Interval(point, True, point, True) for point in points if point is not None])
            if None not in points
            else None
        )
    if part.brackets:
        if len(part.parts) != 2 or part.brackets[0] not in "([" or part.brackets[1] not in ")]":
            return None
        low, high = end_value(part.parts[0]), end_value(part.parts[1])
        if low is None or high is None or not low < high:
            return None
        return (Interval(low, part.brackets[0] == "[", high, part.brackets[1] == "]"),)
    regions = [region_of(item) for item in part.parts]
    if any(region is None for region in regions):
        return None
    known = [region for region in regions if region is not None]
    if part.joint == "setminus":
        return _both(known[0], _complement(known[1])) if len(known) == 2 else None
    everything_of_all = merged([interval for region in known for interval in region])
    if part.joint in ("cup", "or", "lor", "vee"):
        return everything_of_all
    common = known[0]
    for region in known[1:]:
        common = _both(common, region)
    return common or everything_of_all  # x < 1, x > 3


def _of_relation(part: Relation) -> Region | None:
    if part.signs == ("in",):
        return region_of(part.sides[1]) if _is_variable(part.sides[0]) else None
    places = [i for i, side in enumerate(part.sides) if _is_variable(side)]
    if len(places) != 1 or "=" in part.signs or "in" in part.signs:
        return None
    common: Region = EVERYTHING
    for i, sign in enumerate(part.signs):
        if places[0] not in (i, i + 1):
            return None
        other = end_value(part.sides[i + 1 if places[0] == i else i])
        if other is None:
            return None
        common = _both(common, _half_line(sign if places[0] == i else _TURNED[sign], other))
    return common


_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}


def _is_variable(part: Part) -> bool:
    return isinstance(part, Leaf) and re.fullmatch(r"[A-Za-z]|\\[a-z]+|[A-Za-z]\([a-z]\)", part.text.strip()) is not None


def _half_line(sign: str, end: float) -> Region:
    below = Interval(-math.inf, False, end, sign == "<=")
    above = Interval(end, sign == ">=", math.inf, False)
    return (below, above) if sign == "!=" else (below,) if sign.startswith("<") else (above,)


def merged(intervals: list[Interval]) -> Region:
    """Returns a union of intervals: those that touch become one."""
    result: list[Interval] = []
    for interval in sorted(intervals, key=lambda item: (item.low, not item.low_closed)):
        if result and (interval.low < result[-1].high or (
            _close(interval.low, result[-1].high) and (interval.low_closed or result[-1].high_closed)
        )):  # fmt: skip
            last = result[-1]
            higher = max((last.high, last.high_closed), (interval.high, interval.high_closed))
            result[-1] = Interval(last.low, last.low_closed, *higher)
        else:
            result.append(interval)
    return tuple(result)


def _both(left: Region, right: Region) -> Region:
    common = []
    for a in left:
        for b in right:
            low, low_open = max((a.low, not a.low_closed), (b.low, not b.low_closed))
            high, high_closed = min((a.high, a.high_closed), (b.high, b.high_closed))
            if low < high or (low == high and not low_open and high_closed):
                common.append(Interval(low, not low_open, high, high_closed))
    return merged(common)


def _complement(region: Region) -> Region:
    gaps, low, closed = [], -math.inf, False
    for interval in region:
        if interval.low > low or (interval.low == low and closed and not interval.low_closed):
            gaps.append(Interval(low, closed, interval.low, not interval.low_closed))
        low, closed = interval.high, not interval.high_closed
    if low < math.inf:
        gaps.append(Interval(low, closed, math.inf, False))
    return tuple(gaps)
