"""Means per token with bootstrap intervals, and distributions with bins in common."""

import numpy as np
import pytest

from dgr_lightning.statistics.bootstrap import QUANTILES, WIDTH, distribution, ratio_of_sums


def test_the_mean_is_that_of_all_tokens_and_its_interval_that_of_whole_units():
    assert ratio_of_sums([4.0, 0.0], [1, 3]).value == 1.0
    assert ratio_of_sums([1.0, 0.0, 3.0], [2, 0, 2]).n == 2
    assert ratio_of_sums([], []).value is None
    # Every unit the same: no spread at all, whatever the tokens.
    same = ratio_of_sums([5.0] * 50, [10] * 50)
    assert (same.value, same.low, same.high) == (0.5, 0.5, 0.5)
    # The interval narrows with the number of units, not of tokens.
    random = np.random.default_rng(1)
    values = random.normal(1.0, 1.0, 400)
    wide, narrow = ratio_of_sums(1000 * values, np.full(400, 1000)), ratio_of_sums(values, np.full(400, 1))
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low)
    assert wide.high - wide.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_limits_stay_where_a_ratio_can_be():
    few = ratio_of_sums([0.7, 0.8, 1.0], [1] * 3, most=1.0)
    # Three are too few to resample: Student's interval, with two degrees of freedom.
    assert few.low == pytest.approx(few.value - 4.303 * np.std([0.7, 0.8, 1.0], ddof=1) / 3**0.5, rel=1e-3) and few.high == 1.0
    assert ratio_of_sums([0.0, 0.0, 9.0], [1] * 3).low == 0.0
    assert ratio_of_sums([-1.0, 0.0, 9.0], [1] * 3).low < 0.0
    # Nearly all units alike, so that most resamples hold one value.
    alike = ratio_of_sums([2.0] * 29 + [1.0], [1] * 30)
    assert alike.low < alike.value < 2.0 and np.isfinite(alike.high)


def test_a_skewed_mean_has_more_room_above():
    found = ratio_of_sums(np.random.default_rng(3).exponential(1.0, 40), np.ones(40))
    assert found.high - found.value > 1.2 * (found.value - found.low)


def test_histograms_have_bins_in_common():
    figures = distribution([0.0, 0.05, 0.051, 0.3, 1.01])
    counts = figures["histogram"]["counts"]
    assert (counts[0], counts[1], counts[6], counts[20], len(counts)) == (1, 2, 1, 1, 21)
    assert figures["histogram"]["width"] == WIDTH
    assert list(figures["quantiles"]) == [str(q) for q in QUANTILES]
    counts = distribution([-1.0, 0.99, 1.0], low=-1.0, high=1.0)["histogram"]["counts"]
    assert (counts[0], counts[39], len(counts)) == (1, 2, 40)
