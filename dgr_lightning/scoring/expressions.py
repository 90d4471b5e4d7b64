r"""Reads a LaTeX expression and computes its value at given values of its variables.

This is the cheap comparison before a symbolic one: expressions that differ at a random point are different, and those that
agree at several points to nine digits are the same. Rational values are exact up to a limit on their size, all others are
complex floats; so every operation costs a bounded time, towers of powers included. No text is evaluated as code.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

Value = Fraction | complex
Node = Callable[[Mapping[str, Value]], Value]

MAX_BITS = 20_000
"""Of an exact number; a larger one is a float, or no value."""

MAX_DEPTH = 40
"""How deep groups may be nested."""


class Unreadable(Exception):
    """A text that is no expression of this grammar."""


@dataclass
class Expression:
    """An expression that was read.

    Attributes:
        node: computes its value; raises ArithmeticError or ValueError where it has none.
        symbols: its variables.
        marks: what else it holds: `log`, a logarithm without a base; `slash`, a product after a slash (1/2x); `abs`.
    """

    node: Node
    symbols: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)


def read(text: str, common_log: bool = False, tight: bool = False) -> Expression:
    r"""Returns an expression in the normal form of LaTeX (`answer_form.plain_latex`).

    Args:
        text: such as `\frac{1}{2}x^2`.
        common_log: whether a logarithm without a base is that to the base 10.
        tight: whether 1/2x is 1/(2x), and not (1/2)x.

    Raises:
        Unreadable: it is no expression.
    """
    reader = _Reader(_tokens(text), common_log, tight)
    expression = Expression(reader.sum(), reader.symbols, reader.marks)
    if reader.position != len(reader.tokens):
        raise Unreadable(text)
    return expression


_FUNCTIONS = (
    "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc", "log", "lg", "ln", "exp",
    "sqrt",
)  # fmt: skip
_TOKEN = re.compile(
    r"(?P<repeating>\d*\.\d*\\overline\{\d+\})"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4}(?![\d.]))?)"
    r"|(?P<command>\\[A-Za-z]+|\\.)"
    rf"|(?P<word>{'|'.join(_FUNCTIONS)}|pi(?![a-z])|[A-Za-z])"
    r"|(?P<sign>\S)"
)


def _tokens(text: str) -> list[str]:
    return [found[0] for found in _TOKEN.finditer(text)]


_OPEN = {"(": ")", "[": "]", "{": "}", "|": "|", r"\lvert": r"\rvert", r"\vert": r"\vert", r"\lfloor": r"\rfloor"} | {
    r"\lceil": r"\rceil", r"\{": r"\}",
}  # fmt: skip
_TIMES = ("*", r"\cdot", r"\times", r"\ast")
_OVER = ("/", r"\div")
_WRAPPERS = (
    r"\vec",
    r"\hat",
    r"\bar",
    r"\overline",
    r"\mathbb",
    r"\mathcal",
    r"\tilde",
    r"\overrightarrow",
    r"\widehat",
    r"\underline",
)
_GREEK = {
    f"\\{name}"
    for name in (
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa", "lambda", "mu",
        "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
        "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
    )
}  # fmt: skip
_CONSTANTS: dict[str, complex] = {"e": complex(math.e), "i": 1j, r"\pi": complex(math.pi), "pi": complex(math.pi)}


class _Reader:
    """A recursive descent over tokens; each method reads what it is named after and returns what computes it."""

    def __init__(self, tokens: list[str], common_log: bool, tight: bool) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0
        self.common_log, self.tight = common_log, tight
        self.symbols: set[str] = set()
        self.marks: set[str] = set()
        self.bars = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise Unreadable("the text ends too early")
        self.position += 1
        return token

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        total = self.product()
        while self.peek() in ("+", "-"):
            sign, term = self.take(), self.product()
            total = _binary(add if sign == "+" else subtract, total, term)
        self.depth -= 1
        return total

    def product(self) -> Node:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        value = self.factor()
        while True:
            token = self.peek()
            if token in _TIMES:
                self.take()
                value = _binary(multiply, value, self.signed_factor())
            elif token in _OVER:
                self.take()
                divisor = self.signed_factor()
                if self.starts_factor():
                    self.marks.add("slash")
                    while self.tight and self.starts_factor():
                        divisor = _binary(multiply, divisor, self.factor())
                value = _binary(divide, value, divisor)
            elif self.starts_factor():
                value = _binary(multiply, value, self.factor())
            else:
                break
        return value if sign > 0 else _unary(negate, value)

    def signed_factor(self) -> Node:
        if self.peek() in ("+", "-"):
            return _unary(negate, self.signed_factor()) if self.take() == "-" else self.signed_factor()
        return self.factor()

    def starts_factor(self) -> bool:
        token = self.peek()
        if token in ("|", r"\vert"):
            return self.bars == 0
        return bool(token) and (
            token[0].isalnum()
            or token[0] == "."
            or token in _OPEN
            or token in _GREEK
            or token in _WRAPPERS
            or token in _CONSTANTS
            or token in (r"\frac", r"\sqrt", r"\binom", r"\max", r"\min", r"\gcd")
            or token[1:] in _FUNCTIONS
        )

    def factor(self) -> Node:
        whole = self.peek()
        value = self.atom()
        if whole.isdigit() and self.peek() == r"\frac" and (part := self.plain_fraction()) is not None:
            value = _binary(add, value, part)  # a mixed number
        return self.with_powers(value)

    def with_powers(self, value: Node) -> Node:
        while (token := self.peek()) in ("^", "!", "%", "°"):
            self.take()
            if token == "^":
                if self.peek() == "*":
                    raise Unreadable("a star")
                value = _binary(power, value, self.exponent())
            elif token == "!":
                value = _unary(factorial, value)
            elif token == "%":
                value = _binary(divide, value, _constant(Fraction(100)))
            else:
                value = _binary(multiply, value, _constant(complex(math.pi / 180)))
        return value

    def plain_fraction(self) -> Node | None:
        r"""Reads `\frac{2}{3}` where it is one of plain digits; reads nothing otherwise."""
        seven = self.tokens[self.position : self.position + 7]
        if len(seven) == 7 and seven[1::3] == ["{", "{"] and seven[2].isdigit() and seven[5].isdigit() and int(seven[5]):
            self.position += 7
            return _constant(Fraction(int(seven[2]), int(seven[5])))
        return None

    def exponent(self) -> Node:
        if self.peek() in ("-", "+"):
            return _unary(negate, self.exponent()) if self.take() == "-" else self.exponent()
        value = self.atom()
        if self.peek() == "^":
            self.take()
            value = _binary(power, value, self.exponent())
        return value

    def atom(self) -> Node:
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return _constant(_number(token))
        if token in _OPEN:
            return self.group(token)
        if token in (r"\frac", r"\binom"):
            upper, lower = self.argument(), self.argument()
            return _binary(divide if token == r"\frac" else choose, upper, lower)
        if token.removeprefix("\\") == "sqrt":
            return self.root()
        if token.removeprefix("\\") in _FUNCTIONS:
            return self.function(token.removeprefix("\\"))
        if token in (r"\max", r"\min", r"\gcd"):
            return self.of_list(token)
        if token in _WRAPPERS:
            return self.argument()
        if token in _CONSTANTS and self.peek() != "_":
            return _constant(_CONSTANTS[token])
        if token in _GREEK or token in _CONSTANTS or (len(token) == 1 and token.isalpha()):
            return self.symbol(token)
        raise Unreadable(token)

    def symbol(self, name: str) -> Node:
        if self.peek() == "_":
            self.take()
            name += "_" + self.subscript()
        while self.peek() == "'":
            name += self.take()
        self.symbols.add(name)
        return lambda values: values[name]

    def subscript(self) -> str:
        if self.peek() != "{":
            return self.take()
        self.take()
        name = ""
        while (token := self.take()) != "}":
            name += token
        return name

    def group(self, opening: str) -> Node:
        closing = _OPEN[opening]
        bar = opening in ("|", r"\lvert", r"\vert")
        self.bars += bar
        outer, self.bars = self.bars, self.bars if bar else 0
        value = self.sum()
        self.bars = outer - bar
        if self.take() != closing:
            raise Unreadable(f"{opening} is not closed")
        if bar:
            self.marks.add("abs")
            return _unary(absolute, value)
        if opening in (r"\lfloor", r"\lceil"):
            return _unary(floor if opening == r"\lfloor" else ceiling, value)
        return value

    def argument(self) -> Node:
        """Reads a group in braces, or what stands for one."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        value = self.atom()
        self.depth -= 1
        return value

    def root(self) -> Node:
        degree: Node = _constant(Fraction(2))
        if self.peek() == "[":
            degree = self.argument()
        return _binary(root, self.argument(), degree)

    def function(self, name: str) -> Node:
        exponent: Node | None = None
        base: Node | None = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                exponent = self.exponent()
            else:
                base = self.argument()
        argument = self.function_argument()
        if name in ("log", "lg") and base is None:
            if name == "log":
                self.marks.add("log")
            if name == "lg" or self.common_log:
                base = _constant(Fraction(10))
        value = _unary(FUNCTIONS[name], argument) if base is None else _binary(logarithm, argument, base)
        if exponent is None:
            return value
        inverse = f"arc{name}"
        if inverse in FUNCTIONS and _is_minus_one(exponent):
            return _unary(FUNCTIONS[inverse], argument)
        return _binary(power, value, exponent)

    def function_argument(self) -> Node:
        r"""Reads a group, or the product that follows without one: `\sin 2x`, up to the next function."""
        if self.peek() in _OPEN and self.peek() not in ("|", r"\vert"):
            return self.with_powers(self.atom()) if self.peek() == "{" else self.atom()
        value = self.signed_factor()
        while self.starts_factor() and self.peek().removeprefix("\\") not in _FUNCTIONS and self.peek() not in ("(", "["):
            value = _binary(multiply, value, self.factor())
        if self.peek() == "/" and self.position + 1 < len(self.tokens) and self.tokens[self.position + 1].isdigit():
            self.take()
            value = _binary(divide, value, self.factor())
        return value

    def of_list(self, name: str) -> Node:
        if self.take() not in ("(", r"\{", "{"):
            raise Unreadable(name)
        parts = [self.sum()]
        while self.peek() == ",":
            self.take()
            parts.append(self.sum())
        if self.take() not in (")", r"\}", "}"):
            raise Unreadable(name)

        def of(values: Mapping[str, Value]) -> Value:
            numbers = [part(values) for part in parts]
            if name == r"\gcd":
                return Fraction(math.gcd(*(_whole(number) for number in numbers)))
            return (max if name == r"\max" else min)(numbers, key=_real)

        return of


def _is_minus_one(node: Node) -> bool:
    try:
        return node({}) == -1
    except (ArithmeticError, ValueError, KeyError):
        return False


def _constant(value: Value) -> Node:
    return lambda _: value


def _unary(function: Callable[[Value], Value], node: Node) -> Node:
    return lambda values: function(node(values))


def _binary(function: Callable[[Value, Value], Value], left: Node, right: Node) -> Node:
    return lambda values: function(left(values), right(values))


def _number(token: str) -> Fraction:
    if "overline" not in token:
        return Fraction(token)
    digits, _, repeated = token.partition(r"\overline{")
    repeated = repeated.rstrip("}")
    whole, _, places = digits.partition(".")
    start = Fraction(f"{whole or '0'}.{places or '0'}")
    return start + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(places))


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


def _real(value: Value) -> float:
    number = complex(value)
    if abs(number.imag) > 1e-9 * max(1.0, abs(number.real)):
        raise ValueError("not real")
    return number.real


def _whole(value: Value) -> int:
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
        return Fraction(0) if _real(exponent) > 0 else _undefined()
    return _checked(_float(base) ** _float(exponent))


def root(value: Value, degree: Value) -> Value:
    """Returns a root: exact where it is rational, the real one of odd degree for a negative number."""
    if isinstance(degree, Fraction) and degree.denominator == 1 and 1 <= degree <= 64 and isinstance(value, Fraction):
        whole = int(degree)
        if value < 0 and whole % 2:
            return negate(root(-value, degree))
        if value >= 0 and (exact := _exact_root(value, whole)) is not None:
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
    number = _whole(value)
    if not 0 <= number <= 1000:
        raise OverflowError
    return _checked(Fraction(math.factorial(number)))


def choose(total: Value, chosen: Value) -> Value:
    """Returns a binomial coefficient of whole numbers."""
    upper, lower = _whole(total), _whole(chosen)
    if not 0 <= upper <= 2000 or lower < 0:
        raise OverflowError
    return _checked(Fraction(math.comb(upper, lower)))


def absolute(value: Value) -> Value:
    """Returns |value|."""
    return abs(value) if isinstance(value, Fraction) else complex(abs(value))


def floor(value: Value) -> Value:
    """Returns the largest whole number that is not above a value."""
    return Fraction(math.floor(value if isinstance(value, Fraction) else _real(value) + 1e-12))


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
