import pytest

from dgr_lightning.report.estimates import estimate_of, number, percent, signed, without_interval
from dgr_lightning.statistics.intervals import Estimate


@pytest.mark.parametrize(
    ("estimate", "texts"),
    [
        (Estimate(0.987, 0.9714, 0.9942, 500), ("98.7 (97.1–99.4)", "+98.7 (+97.1, +99.4)", "0.987 (0.971 to 0.994)")),
        (Estimate(-0.005, -0.012, 0.003, 9), ("-0.5 (-1.2–0.3)", "−0.5 (−1.2, +0.3)", "−0.005 (−0.012 to 0.003)")),
        (Estimate(4914.77, 4000.0, None, 9), ("491477.0", "+491477.0", "4,915")),
        (Estimate(-0.0, -0.0, 0.0, 9), ("-0.0 (-0.0–0.0)", "+0.0 (+0.0, +0.0)", "0.000 (0.000 to 0.000)")),
        (Estimate(None, None, None, 0), ("–", "–", "–")),
        (None, ("–", "–", "–")),
    ],
)
def test_value_and_interval_are_written_alike(estimate, texts):
    assert (percent(estimate), signed(estimate), number(estimate)) == texts
    assert [without_interval(text) for text in texts] == [text.split(" ")[0] for text in texts]


def test_a_difference_may_be_in_other_units():
    assert signed(Estimate(20.0, -12.0, 28.0, 50), 1) == "+20.0 (−12.0, +28.0)"


def test_an_estimate_survives_its_json_and_an_undefined_one_is_none():
    estimate = Estimate(0.5, 0.4, 0.6, 10)
    assert estimate_of(estimate.to_json()) == estimate
    assert estimate_of(Estimate(None, None, None, 3).to_json()) is None and estimate_of(None) is None
