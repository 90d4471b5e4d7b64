r"""Reads a LaTeX expression and computes its value at given values of its variables.

This is the cheap comparison before a symbolic one: expressions that differ at a random point are different, and those that
agree at several points to nine digits are the same. Rational values are exact up to a limit on their size, all others are
complex floats; so every operation costs a bounded time, towers of powers included. No text is evaluated as code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from dgr_lightning.scoring.maths.arithmetic import (
    FUNCTIONS,
    Value,
    absolute,
    add,
    ceiling,
    choose,
    divide,
    factorial,
    floor,
    logarithm,
    multiply,
    negate,
    power,
    real,
    root,
    subtract,
    whole,
)
from dgr_lightning.scoring.maths.nodes import Expression, Node, binary, constant, is_minus_one, unary
from dgr_lightning.scoring.maths.tokens import (
    CONSTANTS,
    FUNCTION_NAMES,
    GREEK,
    OPEN,
    OVER,
    TIMES,
    WRAPPERS,
    Cursor,
    Unreadable,
    begins_factor,
    number_of,
    tokens_of,
)

MAX_DEPTH = 40
"""How deep groups may be nested."""


def read(text: str, common_log: bool = False, tight: bool = False) -> Expression:
    r"""Returns an expression in the normal form of LaTeX (`answer_form.plain_latex`).

    Args:
        text: such as `\frac{1}{2}x^2`.
        common_log: whether a logarithm without a base is that to the base 10.
        tight: whether 1/2x is 1/(2x), and not (1/2)x.

    Raises:
        Unreadable: it is no expression.
    """
    reader = _Reader(tokens_of(text), common_log, tight)
    expression = Expression(reader.sum(), reader.symbols, reader.marks)
    if reader.position != len(reader.tokens):
        raise Unreadable(text)
    return expression


class _Reader(Cursor):
    """A recursive descent over tokens; each method reads what it is named after and returns what computes it."""

    def __init__(self, tokens: list[str], common_log: bool, tight: bool) -> None:
        super().__init__(tokens)
        self.depth = 0
        self.common_log, self.tight = common_log, tight
        self.symbols: set[str] = set()
        self.marks: set[str] = set()
        self.bars = 0

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        total = self.product()
        while self.peek() in ("+", "-"):
            sign, term = self.take(), self.product()
            total = binary(add if sign == "+" else subtract, total, term)
        self.depth -= 1
        return total

    def product(self) -> Node:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        value = self.factor()
        while True:
            token = self.peek()
            if token in TIMES:
                self.take()
                value = binary(multiply, value, self.signed_factor())
            elif token in OVER:
                self.take()
                divisor = self.signed_factor()
                if self.starts_factor():
                    self.marks.add("slash")
                    while self.tight and self.starts_factor():
                        divisor = binary(multiply, divisor, self.factor())
                value = binary(divide, value, divisor)
            elif self.starts_factor():
                value = binary(multiply, value, self.factor())
            else:
                break
        return value if sign > 0 else unary(negate, value)

    def signed_factor(self) -> Node:
        if self.peek() in ("+", "-"):
            return unary(negate, self.signed_factor()) if self.take() == "-" else self.signed_factor()
        return self.factor()

    def starts_factor(self) -> bool:
        token = self.peek()
        if token in ("|", r"\vert"):
            return self.bars == 0
        return begins_factor(token)

    def factor(self) -> Node:
        first = self.peek()
        value = self.atom()
        if first.isdigit() and self.peek() == r"\frac" and (part := self.plain_fraction()) is not None:
            value = binary(add, value, part)  # a mixed number
        return self.with_powers(value)

    def with_powers(self, value: Node) -> Node:
        while (token := self.peek()) in ("^", "!", "%", "°"):
            self.take()
            if token == "^":
                if self.peek() == "*":
                    raise Unreadable("a star")
                value = binary(power, value, self.exponent())
            elif token == "!":
                value = unary(factorial, value)
            elif token == "%":
                value = binary(divide, value, constant(Fraction(100)))
            else:
                value = binary(multiply, value, constant(complex(math.pi / 180)))
        return value

    def plain_fraction(self) -> Node | None:
        r"""Reads `\frac{2}{3}` where it is one of plain digits; reads nothing otherwise."""
        seven = self.tokens[self.position : self.position + 7]
        if len(seven) == 7 and seven[1::3] == ["{", "{"] and seven[2].isdigit() and seven[5].isdigit() and int(seven[5]):
            self.position += 7
            return constant(Fraction(int(seven[2]), int(seven[5])))
        return None

    def exponent(self) -> Node:
        if self.peek() in ("-", "+"):
            return unary(negate, self.exponent()) if self.take() == "-" else self.exponent()
        value = self.atom()
        if self.peek() == "^":
            self.take()
            value = binary(power, value, self.exponent())
        return value

    def atom(self) -> Node:
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return constant(number_of(token))
        if token in OPEN:
            return self.group(token)
        if token in (r"\frac", r"\binom"):
            upper, lower = self.argument(), self.argument()
            return binary(divide if token == r"\frac" else choose, upper, lower)
        if token.removeprefix("\\") == "sqrt":
            return self.root()
        if token.removeprefix("\\") in FUNCTION_NAMES:
            return self.function(token.removeprefix("\\"))
        if token in (r"\max", r"\min", r"\gcd"):
            return self.of_list(token)
        if token in WRAPPERS:
            return self.argument()
        if token in CONSTANTS and self.peek() != "_":
            return constant(CONSTANTS[token])
        if token in GREEK or token in CONSTANTS or (len(token) == 1 and token.isalpha()):
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
        closing = OPEN[opening]
        bar = opening in ("|", r"\lvert", r"\vert")
        self.bars += bar
        outer, self.bars = self.bars, self.bars if bar else 0
        value = self.sum()
        self.bars = outer - bar
        if self.take() != closing:
            raise Unreadable(f"{opening} is not closed")
        if bar:
            self.marks.add("abs")
            return unary(absolute, value)
        if opening in (r"\lfloor", r"\lceil"):
            return unary(floor if opening == r"\lfloor" else ceiling, value)
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
        degree: Node = constant(Fraction(2))
        if self.peek() == "[":
            degree = self.argument()
        return binary(root, self.argument(), degree)

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
                base = constant(Fraction(10))
        value = unary(FUNCTIONS[name], argument) if base is None else binary(logarithm, argument, base)
        if exponent is None:
            return value
        inverse = f"arc{name}"
        if inverse in FUNCTIONS and is_minus_one(exponent):
            return unary(FUNCTIONS[inverse], argument)
        return binary(power, value, exponent)

    def function_argument(self) -> Node:
        r"""Reads a group, or the product that follows without one: `\sin 2x`, up to the next function."""
        if self.peek() in OPEN and self.peek() not in ("|", r"\vert"):
            return self.with_powers(self.atom()) if self.peek() == "{" else self.atom()
        value = self.signed_factor()
        while self.starts_factor() and self.peek().removeprefix("\\") not in FUNCTION_NAMES and self.peek() not in ("(", "["):
            value = binary(multiply, value, self.factor())
        if self.peek() == "/" and self.position + 1 < len(self.tokens) and self.tokens[self.position + 1].isdigit():
            self.take()
            value = binary(divide, value, self.factor())
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
                return Fraction(math.gcd(*(whole(number) for number in numbers)))
            return (max if name == r"\max" else min)(numbers, key=real)

        return of
