"""Means over bases and predictions of one new run: values by hand, and coverage by simulation."""

import math
import statistics
from random import Random

import pytest

from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.statistics.replication import replicate, shared_variance


def exactly(value):
    """A rate without doubt about the problems, so that bases and seeds alone make the interval."""
    return Estimate(value, value, value, 600)


def drawn(random, num_bases, num_seeds, between, within):
    effects = [random.gauss(0.5, between) for _ in range(num_bases)]
    return [[exactly(random.gauss(effect, within)) for _ in range(num_seeds)] for effect in effects]


def test_interval_is_students_over_the_means_of_bases():
    found = replicate([[exactly(0.4), exactly(0.6)], [exactly(0.6), exactly(0.8)], [exactly(0.3), exactly(0.3)]])
    means = [0.5, 0.7, 0.3]
    half = 4.303 * statistics.stdev(means) / math.sqrt(3)  # t with two degrees of freedom
    assert found.mean.value == pytest.approx(0.5)
    assert found.mean.high - 0.5 == pytest.approx(half, rel=1e-3)
    assert (found.num_bases, found.num_runs, found.mean.n) == (3, 6, 600)


def test_one_new_run_varies_by_base_seed_and_mean():
    # With one seed a base, a new run's variance is (1 + 1/B) times the bases', on B - 1 degrees of freedom.
    found = replicate([[exactly(value)] for value in (0.4, 0.5, 0.6)])
    assert found.prediction is not None
    assert found.prediction[1] - 0.5 == pytest.approx(4.303 * 0.1 * math.sqrt(4 / 3), rel=1e-3)
    # Seeds that differ widen the prediction, though the bases' means agree.
    found = replicate([[exactly(0.4), exactly(0.6)]] * 3)
    assert found.mean.low == found.mean.high == pytest.approx(0.5)
    assert found.prediction is not None
    assert found.prediction[1] - 0.5 == pytest.approx(3.182 * math.sqrt(0.02 / 2), rel=1e-3)  # three degrees of freedom


def test_runs_that_agree_keep_the_doubt_about_the_problems():
    found = replicate([[Estimate(1.0, 0.99, 1.0, 600)] * 2] * 5)
    assert (found.mean.low, found.mean.high) == (pytest.approx(0.99), 1.0)
    assert found.prediction == (pytest.approx(0.99), 1.0)


def test_one_base_tells_nothing_of_others():
    found = replicate([[exactly(0.4), exactly(0.6)]])
    assert (found.mean, found.prediction) == (Estimate(0.5, None, None, 600), None)


def test_an_undefined_run_makes_it_undefined():
    assert replicate([[exactly(0.4)], [Estimate(None, None, None, 7)]]).mean == Estimate(None, None, None, 7)


def test_limits_stay_inside_the_bounds():
    found = replicate([[exactly(0.1)], [exactly(0.9)]])
    assert (found.mean.low, found.mean.high, found.prediction) == (0.0, 1.0, (0.0, 1.0))
    assert replicate([[exactly(0.1)], [exactly(0.9)]], (-1.0, 1.0)).mean.low == -1.0


@pytest.mark.parametrize(("between", "within"), [(0.05, 0.01), (0.03, 0.03), (0.01, 0.05)])
def test_both_intervals_cover_what_they_say(between, within):
    random, hits, predicted, repeats = Random(0), 0, 0, 2000
    for _ in range(repeats):
        found = replicate(drawn(random, 5, 2, between, within))
        hits += found.mean.low <= 0.5 <= found.mean.high
        new = random.gauss(random.gauss(0.5, between), within)
        predicted += found.prediction[0] <= new <= found.prediction[1]
    # Binomial standard error at 95 %: 0.5 points. Satterthwaite's approximation may be some points conservative.
    assert 0.935 <= hits / repeats <= 0.965
    assert 0.935 <= predicted / repeats <= 0.985


def test_problems_that_are_hard_for_all_runs_are_common_to_them():
    alike = [[[1.0, 0.0, 1.0, 0.0]] * 2] * 3
    assert shared_variance([alike]) == pytest.approx(1.0)
    # Every base fails on problems of its own: nothing is common.
    apart = [[[float(problem != base) for problem in range(6)]] * 2 for base in range(6)]
    assert shared_variance([apart]) == 0.0
    assert 0.2 < shared_variance([alike, [base[:2] for base in apart][:3]]) < 1.0
    assert shared_variance([[[[1.0, 0.0]]]]) == 1.0 and shared_variance([[[[1.0, 1.0]], [[1.0, 1.0]]]]) == 1.0


def test_what_the_problems_give_to_all_runs_alike_is_in_the_mean_and_not_in_the_prediction():
    runs = [[Estimate(value, value - 0.05, value + 0.05, 600)] * 2 for value in (0.4, 0.5, 0.6)]
    unknown, none, half = replicate(runs), replicate(runs, shared=0.0), replicate(runs, shared=0.5)
    own = 4.303 * 0.1 / math.sqrt(3)
    assert none.mean.high - 0.5 == pytest.approx(own, rel=1e-3)
    assert half.mean.high - 0.5 == pytest.approx(math.hypot(own, math.sqrt(0.5) * 0.05), rel=1e-3)
    assert unknown.mean.high - 0.5 == pytest.approx(math.hypot(own, 0.05), rel=1e-3)
    assert none.prediction == half.prediction and unknown.prediction[1] > none.prediction[1]
    agreed = replicate([[Estimate(1.0, 0.99, 1.0, 600)] * 2] * 5, shared=1.0)
    assert agreed.prediction == (pytest.approx(0.99), 1.0)
