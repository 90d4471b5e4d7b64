"""The tokens that expressions in LaTeX are written in: numbers, commands, brackets, names of functions and constants."""

from __future__ import annotations

import math
import re
from fractions import Fraction


class Unreadable(Exception):
    """A text that is no expression of this grammar."""


FUNCTION_NAMES = (
    "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc", "log", "lg", "ln", "exp",
    "sqrt",
)  # fmt: skip
_TOKEN = re.compile(
    r"(?P<repeating>\d*\.\d*\\overline\{\d+\})"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4}(?![\d.]))?)"
    r"|(?P<command>\\[A-Za-z]+|\\.)"
    rf"|(?P<word>{'|'.join(FUNCTION_NAMES)}|pi(?![a-z])|[A-Za-z])"
    r"|(?P<sign>\S)"
)


def tokens_of(text: str) -> list[str]:
    """Returns the tokens of a text, in order, without the blanks between them."""
    return [found[0] for found in _TOKEN.finditer(text)]


OPEN = {"(": ")", "[": "]", "{": "}", "|": "|", r"\lvert": r"\rvert", r"\vert": r"\vert", r"\lfloor": r"\rfloor"} | {
    r"\lceil": r"\rceil", r"\{": r"\}",
}  # fmt: skip
TIMES = ("*", r"\cdot", r"\times", r"\ast")
OVER = ("/", r"\div")
WRAPPERS = (
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
GREEK = {
    f"\\{name}"
    for name in (
        "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa", "lambda", "mu",
        "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
        "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
    )
}  # fmt: skip
CONSTANTS: dict[str, complex] = {"e": complex(math.e), "i": 1j, r"\pi": complex(math.pi), "pi": complex(math.pi)}


def number_of(token: str) -> Fraction:
    r"""Returns the value of a number, exact: `2.5`, `1e-3`, `0.1\overline{6}`."""
    if "overline" not in token:
        return Fraction(token)
    digits, _, repeated = token.partition(r"\overline{")
    repeated = repeated.rstrip("}")
    whole, _, places = digits.partition(".")
    start = Fraction(f"{whole or '0'}.{places or '0'}")
    return start + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(places))


def begins_factor(token: str) -> bool:
    """Returns whether a factor begins with a token, which is no bar; False for the empty token at the end."""
    return bool(token) and (
        token[0].isalnum()
        or token[0] == "."
        or token in OPEN
        or token in GREEK
        or token in WRAPPERS
        or token in CONSTANTS
        or token in (r"\frac", r"\sqrt", r"\binom", r"\max", r"\min", r"\gcd")
        or token[1:] in FUNCTION_NAMES
    )


class Cursor:
    """A place in a list of tokens, from which they are taken one after the other."""

    def __init__(self, tokens: list[str]) -> None:
        """Stands before the first token."""
        self.tokens, self.position = tokens, 0

    def peek(self) -> str:
        """Returns the next token without taking it; an empty text at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        """Returns the next token, and goes past it.

        Raises:
            Unreadable: there is none.
        """
        token = self.peek()
        if not token:
            raise Unreadable("the text ends too early")
        self.position += 1
        return token
