"""Values of expressions: exact where they are rational, bounded in cost, and nothing that is no expression."""

import math
import time
from fractions import Fraction

import pytest

from dgr_lightning.scoring.maths.answer_form import plain_latex
from dgr_lightning.scoring.maths.expressions import read
from dgr_lightning.scoring.maths.tokens import Unreadable


def value(text, **values):
    return read(plain_latex(text)).node(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\frac12 + \frac13", Fraction(5, 6)),
        ("-2^2", -4),
        ("2^{-3}", Fraction(1, 8)),
        (r"3\frac12", Fraction(7, 2)),
        (r"\sqrt{16}", 4),
        (r"\sqrt[3]{-8}", -2),
        ("5! - |{-3}|", 117),
        (r"\binom{10}{3}", 120),
        (r"\log_2 8", 3),
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"\lfloor 5.5 \rfloor + \lceil 5.5 \rceil", 11),
        (r"\max(2, 7)", 7),
    ],
)
def test_rational_values_are_exact(text, expected):
    assert value(text) == expected and isinstance(value(text), Fraction)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\cos 60^\circ", 0.5),
        (r"\sin^2 1 + \cos^2 1", 1),
        (r"\sin^{-1} 1", math.pi / 2),
        (r"\sin 2\pi", 0),
        (r"e^{i\pi}", -1),
        ("2πr", 6 * math.pi),
        (r"\ln r^2", 2 * math.log(3)),
    ],
)
def test_other_values_are_floats(text, expected):
    assert abs(value(text, r=3) - expected) < 1e-12


@pytest.mark.parametrize(
    "text", ["2 +", "(1", ")", r"\int x dx", r"\text{even}", "1 = 2", "", "{" * 200 + "1" + "}" * 200, "__import__"]
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "(((10!)!)!)!", r"\binom{10^{20}}{10^{10}}", "2^{99999999}", "1/0"])
def test_values_out_of_bounds_are_none(text):
    start = time.process_time()
    with pytest.raises(ArithmeticError):
        value(text)
    assert time.process_time() - start < 1
