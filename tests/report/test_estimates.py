import pytest

from dgr_lightning.report.estimates import estimate_of, number, percent, signed, without_interval
from dgr_lightning.statistics.intervals import Estimate

UNBOUNDED = Estimate(0.5, 0.4, None, 9)
UNDEFINED = Estimate(None, None, None, 0)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(Estimate(0.987, 0.9714, 0.9942, 500), "98.7 (97.1–99.4)"), (UNBOUNDED, "50.0"), (UNDEFINED, "–"), (None, "–")],
)
def test_a_rate_is_in_per_cent(rate, text):
    assert percent(rate) == text


@pytest.mark.parametrize(
    ("difference", "text"),
    [(Estimate(-0.005, -0.012, 0.003, 9), "−0.5 (−1.2, +0.3)"), (UNBOUNDED, "+50.0"), (UNDEFINED, "–"), (None, "–")],
)
def test_a_difference_has_its_sign(difference, text):
    assert signed(difference) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(-0.001, -0.004, -0.0, 9), "−0.001 (−0.004 to 0.000)"),
        (Estimate(4914.77, 4000.0, 6000.4, 9), "4,915 (4,000 to 6,000)"),
        (UNBOUNDED, "0.500"),
        (UNDEFINED, "–"),
        (None, "–"),
    ],
)
def test_large_numbers_have_no_decimals(estimate, text):
    assert number(estimate) == text
    assert without_interval(text) == text.split(" ")[0]


def test_a_difference_may_be_in_other_units():
    assert signed(Estimate(20.0, -12.0, 28.0, 50), 1) == "+20.0 (−12.0, +28.0)"


def test_an_estimate_survives_its_json_and_an_undefined_one_is_none():
    estimate = Estimate(0.5, 0.4, 0.6, 10)
    assert estimate_of(estimate.to_json()) == estimate
    assert estimate_of(Estimate(None, None, None, 3).to_json()) is None and estimate_of(None) is None
