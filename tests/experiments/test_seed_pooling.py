import pytest

from dgr_lightning.experiments.seed_pooling import pool
from dgr_lightning.statistics.intervals import Estimate


def _moved(by: float) -> Estimate:
    return Estimate(0.5 + by, 0.4 + by, 0.6 + by, 100)


def test_interval_over_seeds_holds_both_sources_of_doubt():
    one = _moved(0.0)
    assert pool([one]) == Estimate(0.5, 0.4, 0.6, 100)
    # Seeds that agree do not shrink the doubt about the problems, which they share.
    same = pool([one] * 3)
    assert (same.low, same.high) == (pytest.approx(0.4), pytest.approx(0.6))
    # Student's t for two degrees of freedom: 4.303 · 0.1 / √3, in quadrature with 0.1.
    spread = pool([_moved(by) for by in (-0.1, 0.0, 0.1)])
    assert spread.high - spread.value == pytest.approx(((4.303 * 0.1 / 3**0.5) ** 2 + 0.1**2) ** 0.5)
    assert pool([Estimate(1.0, 0.4, 1.0, 100), Estimate(0.8, 0.4, 0.9, 100)]).high == 1.0


def test_many_seeds_take_the_normal_quantile():
    spread = pool([_moved(by) for by in (-0.01, 0.01) * 6])
    deviation = 0.01 * (12 / 11) ** 0.5
    assert spread.high - 0.5 == pytest.approx(((1.96 * deviation / 12**0.5) ** 2 + 0.1**2) ** 0.5)


def test_a_mean_with_an_undefined_rate_is_undefined():
    assert pool([_moved(0.0), Estimate(None, None, None, 7)]) == Estimate(None, None, None, 7)
