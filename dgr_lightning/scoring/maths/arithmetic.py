"""Arithmetic on values that are exact while they are small, and complex floats beyond: every operation costs a bounded time.

An operation without a value raises ArithmeticError or ValueError.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from fractions import Fraction

Value = Fraction | complex

MAX_BITS = 20_000
"""Of an exact number; a larger one is a float, or no value."""


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _checked(value: Value) -> Value:
    """Returns a value in bounds: an exact one of limited size, or a finite float."""
    if isinstance(value, Fraction):
        return value if _bits(value) <= MAX_BITS else _checked(complex(value))
    if not cmath.isfinite(value):
        raise OverflowError
    return value


def _float(value: Value) -> complex:
    return complex(value)


def real(value: Value) -> float:
    """Returns a value that is real but for rounding as a float; raises ValueError for another."""
    number = complex(value)
    if abs(number.imag) > 1e-9 * max(1.0, abs(number.real)):
        raise ValueError("not real")
    return number.real


def whole(value: Value) -> int:
    """Returns an exact whole number; raises ValueError for another value."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return int(value)
    raise ValueError("not whole")


def add(left: Value, right: Value) -> Value:
    """Returns left + right."""
    exact = isinstance(left, Fraction) and isinstance(right, Fraction)
    return _checked(left + right if exact else _float(left) + _float(right))


def subtract(left: Value, right: Value) -> Value:
    """Returns left − right."""
    return add(left, negate(right))


def negate(value: Value) -> Value:
    """Returns −value."""
    return -value


def multiply(left: Value, right: Value) -> Value:
    """Returns left · right."""
    exact = isinstance(left, Fraction) and isinstance(right, Fraction)
    return _checked(left * right if exact else _float(left) * _float(right))


def divide(left: Value, right: Value) -> Value:
    """Returns left / right."""
    exact = isinstance(left, Fraction) and isinstance(right, Fraction)
    return _checked(left / right if exact else _float(left) / _float(right))


def power(base: Value, exponent: Value) -> Value:
    """Returns base to the exponent: exact for whole exponents while the result is small enough, else the principal value."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        if base in (0, 1, -1) or abs(exponent) * _bits(base) <= MAX_BITS:
            return base ** (int(exponent) if base not in (1, -1) else int(exponent % 2))
    elif isinstance(exponent, Fraction) and exponent.numerator == 1 and exponent.denominator == 2:
        return root(base, Fraction(2))
    if isinstance(base, Fraction) and base == 0:
        return Fraction(0) if real(exponent) > 0 else _undefined()
    return _checked(_float(base) ** _float(exponent))


def root(value: Value, degree: Value) -> Value:
    """Returns a root: exact where it is rational, the real one of odd degree for a negative number."""
    if isinstance(degree, Fraction) and degree.denominator == 1 and 1 <= degree <= 64 and isinstance(value, Fraction):
        order = int(degree)
        if value < 0 and order % 2:
            return negate(root(-value, degree))
        if value >= 0 and (exact := _exact_root(value, order)) is not None:
            return exact
    return _checked(_float(value) ** (1 / _float(degree)))


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    parts = []
    for number in (value.numerator, value.denominator):
        if degree == 2:
            candidate = math.isqrt(number)
        elif number.bit_length() <= 1000:
            candidate = round(number ** (1 / degree))
        else:
            return None
        if candidate**degree != number:
            return None
        parts.append(candidate)
    return Fraction(parts[0], parts[1])


def _undefined() -> Value:
    raise ZeroDivisionError


def factorial(value: Value) -> Value:
    """Returns value!, exact up to 1,000!."""
    number = whole(value)
    if not 0 <= number <= 1000:
        raise OverflowError
    return _checked(Fraction(math.factorial(number)))


def choose(total: Value, chosen: Value) -> Value:
    """Returns a binomial coefficient of whole numbers."""
    upper, lower = whole(total), whole(chosen)
    if not 0 <= upper <= 2000 or lower < 0:
        raise OverflowError
    return _checked(Fraction(math.comb(upper, lower)))


def absolute(value: Value) -> Value:
    """Returns |value|."""
    return abs(value) if isinstance(value, Fraction) else complex(abs(value))


def floor(value: Value) -> Value:
    """Returns the largest whole number that is not above a value."""
    return Fraction(math.floor(value if isinstance(value, Fraction) else real(value) + 1e-12))


def ceiling(value: Value) -> Value:
    """Returns the smallest whole number that is not below a value."""
    return -floor(-value)


def logarithm(value: Value, base: Value) -> Value:
    """Returns a logarithm, exact where both are powers of a small number."""
    result = cmath.log(_float(value)) / cmath.log(_float(base))
    nearest = round(result.real)
    if isinstance(value, Fraction) and isinstance(base, Fraction) and abs(nearest) < 200 and abs(result - nearest) < 1e-9:
        return Fraction(nearest) if power(base, Fraction(nearest)) == value else result
    return _checked(result)


def _of_float(function: Callable[[complex], complex]) -> Callable[[Value], Value]:
    return lambda value: _checked(function(_float(value)))


FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    name: _of_float(function)
    for name, function in {
        "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
        "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "exp": cmath.exp, "ln": cmath.log, "log": cmath.log,
        "lg": cmath.log10, "cot": lambda x: 1 / cmath.tan(x),
        "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x),
    }.items()
}  # fmt: skip
