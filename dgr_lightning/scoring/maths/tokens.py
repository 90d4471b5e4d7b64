"""The tokens that expressions in LaTeX are written in: numbers, commands, brackets, names of functions and constants."""

from __future__ import annotations

import math
import re
from fractions import Fraction

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
