"""The normal form of a final answer, and its value."""

from fractions import Fraction

import pytest

from dgr_lightning.scoring.maths.answer_form import has_letters, normalise, numeral, parse_number, unit_of


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (r"\dfrac12\text{ cm}", r"\frac{1}{2}"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
        (r"864 \mbox{ inches}^2", "864"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"{\text{east}}", "east"),
        (r"\textbf{(C)}", "C"),
        (r"4210_\text{five}", r"4210_\text{five}"),
        (r"10,\!080", "10080"),
        (r"11,\! 111,\! 111", "11111111"),
        ("2,125.", "2125"),
        ("1,-2", "1,-2"),
        ("1, 200", "1, 200"),
        (r"\$18.90", "18.90"),
        (r"36^\circ", "36"),
        (r"25\%", "25"),
        ("12 square feet", "12"),
        ("3 pi", "3 pi"),
        ("3 ab", "3 ab"),
        ("−５", "-5"),
        ("1½", r"1\frac{1}{2}"),
        (r"\left( 3, \frac 43 \right]", r"( 3, \frac{4}{3} ]"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ],
)
def test_what_does_not_bear_on_the_value_is_dropped(text, normal):
    assert normalise(text) == normal


def test_numbers_are_read_exactly():
    assert parse_number("025") == parse_number("25.0") == 25
    assert parse_number("-.5") == parse_number(r"-\frac{1}{2}") == parse_number("-1/2") == Fraction(-1, 2)
    assert parse_number(r"1\frac{4}{5}") == parse_number("1 4/5") == Fraction(9, 5)
    assert parse_number("3.83e35") == parse_number(r"3.83 \times 10^{35}") == 383 * 10**33
    for text in ("1/0", r"\frac{1}{0}", "2x", "1e9999999", "9" * 5000):
        assert parse_number(text) is None


def test_letters_of_an_answer_are_told_from_units_and_commands():
    assert all(map(has_letters, ("3a+2t", r"\frac12 t", "x")))
    assert not any(map(has_letters, ("5", r"\frac{1}{2}", r"5\text{ cm}", "12 apples", r"2\pi")))
    assert unit_of("5 cm") == unit_of(r"5\text{ centimeters}") == "centimeter" and unit_of("5 apples") is unit_of("5") is None


def test_a_number_in_another_base_is_digits_and_a_base():
    assert numeral("010.10_2") == numeral("10.1_{2}") == ("10.1", "2")
    assert numeral(r"11_{\text{two}}") == ("11", "2") and numeral("42") == ("42", None)
