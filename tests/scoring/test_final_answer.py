"""The final answer in a text: which part of the text it is, its normal form, and its value."""

from fractions import Fraction

import pytest

from dgr_lightning.scoring.final_answer import final_answer, normalise, parse_number


@pytest.mark.parametrize(
    ("text", "final"),
    [
        (r"first \boxed{3}, no: \boxed{4}.", "4"),
        (r"$\boxed{\frac{1}{2^{3}}}$ done", r"\frac{1}{2^{3}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\fbox{7}", "7"),
        (r"\boxed {8}", "8"),
        (r"so $\boxed 5$.", "5"),
        (r"\boxed{3} and then \boxed{\frac{1}{2}", None),
        (r"\boxed", None),
        (r"\boxed{}", ""),
        ("She has 3 + 4 = 7 apples.", "7"),
        ("It costs $1,234.50.", "1,234.50"),
        ("from 10-3 we get -3", "-3"),
        ("a share of 3/4.", "3/4"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_box_is_the_final_answer_or_else_the_last_number(text, final):
    assert final_answer(text) == final


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (r"\dfrac12\text{ cm}", r"\frac{1}{2}"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
        (r"864 \mbox{ inches}^2", "864"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\textbf{(C)}", "C"),
        (r"4210_\text{five}", r"4210_\text{five}"),
        (r"10,\!080", "10080"),
        (r"11,\! 111,\! 111", "11111111"),
        ("2,125.", "2125"),
        ("1,-2", "1,-2"),
        (r"\$18.90", "18.90"),
        (r"36^\circ", "36"),
        (r"25\%", "25"),
        ("12 square feet", "12"),
        ("3 pi", "3 pi"),
        (r"\left( 3, \frac 43 \right]", r"( 3, \frac{4}{3} ]"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ],
)
def test_what_does_not_bear_on_the_value_is_dropped(text, normal):
    assert normalise(text) == normal


def test_numbers_are_read_exactly():
    assert parse_number("025") == parse_number("25.0") == 25
    assert parse_number("-.5") == parse_number(r"-\frac{1}{2}") == parse_number("-1/2") == Fraction(-1, 2)
    assert parse_number(r"1\frac{4}{5}") == Fraction(9, 5)
    for text in ("1/0", r"\frac{1}{0}", "2x", "1e9999999"):
        assert parse_number(text) is None
