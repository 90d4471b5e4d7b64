"""Whether two numbers are the same, as they are written: decimals and their roundings, per cent, numerals of a base."""

from __future__ import annotations

import re
from fractions import Fraction

from dgr_lightning.scoring.maths.answer_form import decimals, normalise, numeral, parse_number
from dgr_lightning.scoring.maths.arithmetic import Value


def same_number(answer: str, gold: str) -> bool | None:
    """Returns whether two numbers are the same; None where one of them is none, or has to be computed.

    25 % is 0.25, and also 25 where the other does not say of what. A gold decimal may be a rounding of the answer.
    """
    left, right = normalise(answer), normalise(gold)
    value, target = parse_number(left), parse_number(right)
    if value is None and target is not None and target.denominator > 1:
        value = _with_decimal_comma(left)
    elif target is None and value is not None and value.denominator > 1:
        target = _with_decimal_comma(right)
    if value is None or target is None:
        return None
    percent, gold_percent = "%" in answer, "%" in gold
    if value == target or rounded(left, value, right, target):
        return True
    if percent != gold_percent:
        return value == 100 * target if percent else 100 * value == target
    return False


def _with_decimal_comma(text: str) -> Fraction | None:
    return parse_number(text.replace(",", ".")) if re.fullmatch(r"-?\d+,\d+", text) else None


def rounded(answer: str, value: Value, gold: str, target: Value) -> bool:
    """Whether one of two values is written as a decimal, and is the other one rounded.

    The gold answer to four digits or more; the answer to at least six places, as math-verify has it.
    """
    try:
        shorter = decimals(answer), decimals(gold)
        a, g = complex(value).real, complex(target).real
        if g == 0 or abs(complex(value) - complex(target)) > 1e-4 * abs(g):
            return False
        if shorter[1] is not None and (shorter[0] is None or shorter[0] > shorter[1]):
            return 2 <= shorter[1] <= 12 and round(a, shorter[1]) == g
        if shorter[0] is not None and shorter[1] is None and MIN_PLACES <= shorter[0] <= 17:
            cut = int(g * 10 ** shorter[0]) / 10 ** shorter[0]
            return a in (round(g, shorter[0]), cut)
    except (OverflowError, ValueError):
        pass
    return False


MIN_PLACES = 6
"""Places after the point that an answer needs to stand for a fraction or a root: 0.333333 for 1/3."""


def same_numeral(answer: str, gold: str) -> bool:
    """The base that the question asks for may be left out, but not changed."""
    (digits, base), (gold_digits, gold_base) = numeral(answer), numeral(gold)
    if not base or not gold_base:
        bare = answer if not base else gold
        if re.fullmatch(r"[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?", bare) is None:
            return False
        digits, gold_digits = numeral(f"{digits}_10")[0], numeral(f"{gold_digits}_10")[0]
        base = gold_base
    return digits == gold_digits and base == gold_base
