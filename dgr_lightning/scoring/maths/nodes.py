"""What expressions are once they are read: nodes, which compute a value from those of the variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dgr_lightning.scoring.maths.arithmetic import Value

Node = Callable[[Mapping[str, Value]], Value]
"""Raises ArithmeticError or ValueError where there is no value."""


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


def constant(value: Value) -> Node:
    """Returns what has the same value at every point."""
    return lambda _: value


def unary(function: Callable[[Value], Value], node: Node) -> Node:
    """Returns what applies a function to one value."""
    return lambda values: function(node(values))


def binary(function: Callable[[Value, Value], Value], left: Node, right: Node) -> Node:
    """Returns what applies a function to two values."""
    return lambda values: function(left(values), right(values))


def is_minus_one(node: Node) -> bool:
    """Returns whether the value is −1 whatever the variables are; False where it depends on one."""
    try:
        return node({}) == -1
    except (ArithmeticError, ValueError, KeyError):
        return False
