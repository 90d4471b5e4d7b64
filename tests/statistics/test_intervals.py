"""Intervals: published values, limits at the ends of the range, and coverage by simulation."""

import math
from random import Random

import pytest

from dgr_lightning.statistics.intervals import Estimate, difference, macro, paired_correlation, rate, relative_percent, wilson


def share(successes, n):
    return rate([[True]] * successes + [[False]] * (n - successes))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_rate_has_wilsons_interval(successes, n, low, high):
    measure = share(successes, n)
    assert measure.value == successes / n and measure.n == n
    assert measure.low == pytest.approx(low, abs=5e-5) and measure.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    # Newcombe (1998), Interval estimation for the difference between independent proportions, table II, method 10.
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 10), 0.6075, 1.0)],
)
def test_a_difference_has_newcombes_interval(first, second, low, high):
    measure = difference(share(*second), share(*first))
    assert measure.value == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert measure.low == pytest.approx(low, abs=5e-5) and measure.high == pytest.approx(high, abs=5e-5)


def test_nothing_measured_is_null_and_not_nan():
    nothing = Estimate(None, None, None, 0)
    assert rate([]) == nothing and macro([]) == nothing
    assert nothing.to_json() == {"value": None, "low": None, "high": None, "n": 0}
    for measure in (macro([share(1, 2), nothing]), difference(nothing, share(1, 2)), relative_percent(share(1, 2), nothing)):
        assert (measure.value, measure.low, measure.high) == (None, None, None)


@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("n", [1, 5, 200])
def test_rates_of_nought_and_one_keep_an_honest_interval(n, samples):
    none, every = rate([[False] * samples] * n), rate([[True] * samples] * n)
    assert none.value == none.low == 0.0 and every.value == every.high == 1.0
    # Nothing is known of how problems differ: samples of one problem do not count as problems.
    assert none.high == wilson(0.0, n)[1] and every.low == pytest.approx(1 - none.high)


def test_samples_of_a_problem_are_no_independent_trials():
    alike = rate([[True] * 8] * 15 + [[False] * 8] * 15)
    assert (alike.low, alike.high) == pytest.approx(wilson(0.5, 30))
    noise = rate([[True, False] * 4] * 30)
    assert (noise.low, noise.high) == pytest.approx(wilson(0.5, 240))
    mixed = rate([[True] * 6 + [False] * 2] * 15 + [[True] * 2 + [False] * 6] * 15)
    assert noise.high < mixed.high < alike.high
    assert alike.n == noise.n == mixed.n == 30


def test_a_rate_averages_over_problems_however_many_samples_each_has():
    assert rate([[True] * 7, [False]]).value == 0.5


def test_a_macro_average_of_one_is_itself_and_of_equals_is_narrower():
    one = share(30, 40)
    assert macro([one]) == one
    four = macro([one] * 4)
    assert four.value == one.value and four.n == 160
    assert four.high - four.value == pytest.approx((one.high - one.value) / 2)
    assert macro([share(5, 5)] * 3).high == 1.0 and macro([share(0, 5)] * 3).low == 0.0


def test_scaling_by_a_negative_number_exchanges_the_limits():
    assert Estimate(0.2, 0.1, 0.4, 7).scaled(-100) == Estimate(-20.0, -40.0, -10.0, 7)
    assert Estimate(0.5, 0.1, None, 7).scaled(-1) == Estimate(-0.5, None, -0.1, 7)


def test_problems_in_common_narrow_a_difference():
    base = [[True]] * 80 + [[False]] * 20
    tuned = [[True]] * 76 + [[False]] * 24
    correlation = paired_correlation([base], [tuned])
    assert 0.8 < correlation < 1
    apart, paired = difference(rate(base), rate(tuned)), difference(rate(base), rate(tuned), correlation)
    assert paired.value == apart.value
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)
    assert paired_correlation([base, base], [base, base]) == pytest.approx(1)
    assert paired_correlation([base], [[[True]] * 100]) == 0.0
    with pytest.raises(ValueError):
        paired_correlation([base], [tuned[:-1]])


def test_a_relative_change_is_undefined_at_nought_and_unbounded_beside_it():
    assert relative_percent(share(0, 50), share(5, 50)) == Estimate(None, None, None, 50)
    gone = relative_percent(share(40, 50), share(0, 50))
    assert gone.value == gone.low == -100.0 and gone.high is not None and -100 < gone.high < -80
    same = relative_percent(share(40, 50), share(40, 50))
    assert same.value == 0 and same.low < 0 < same.high
    unbounded = relative_percent(Estimate(0.1, 0.0, 0.4, 10), share(5, 10))
    assert unbounded.value == pytest.approx(400) and unbounded.low < 400 and unbounded.high is None


def coverage(draw, truth, rounds=800):
    """Share of the drawn intervals that hold the truth."""
    covered = 0
    for _ in range(rounds):
        measure = draw()
        assert measure.low <= measure.value and (measure.high is None or measure.value <= measure.high)
        covered += measure.low <= truth and (measure.high is None or truth <= measure.high)
    return covered / rounds


def problems(random, n, samples, a, b):
    """Outcomes of problems whose difficulty is Beta(a, b)."""
    return [[random.random() < p for _ in range(samples)] for p in (random.betavariate(a, b) for _ in range(n))]


def test_intervals_cover_in_19_of_20_cases():
    random = Random(0)

    def several_samples():
        return rate(problems(random, 40, 4, 2, 1))

    def average():
        return macro([rate(problems(random, 100, 1, 9, 1)), rate(problems(random, 50, 1, 1, 1))])

    def apart():
        return difference(rate(problems(random, 100, 1, 9, 1)), rate(problems(random, 80, 1, 1, 1)))

    def paired(measure):
        tasks = [[random.betavariate(4, 1) for _ in range(60)] for _ in range(2)]
        base, tuned = ([[[random.random() < p * q] for p in task] for task in tasks] for q in (1.0, 0.7))
        means = [macro([rate(task) for task in side]) for side in (base, tuned)]
        return measure(*means, paired_correlation(base, tuned))

    for draw, truth in (
        (several_samples, 2 / 3),
        (average, 0.7),
        (apart, -0.4),
        (lambda: paired(difference), -0.24),
        (lambda: paired(relative_percent), -30.0),
    ):
        assert 0.925 <= coverage(draw, truth) <= 0.985


def test_a_pair_that_hardly_differs_is_covered_without_waste():
    random = Random(1)

    def draw(correlated):
        base = [[random.random() < 0.9] for _ in range(100)]
        tuned = [[right and random.random() < 0.95] for (right,) in base]
        return difference(rate(base), rate(tuned), paired_correlation([base], [tuned]) if correlated else 0.0)

    assert 0.93 <= coverage(lambda: draw(True), -0.045) <= 0.99
    widths = [sum(m.high - m.low for m in (draw(correlated) for _ in range(200))) for correlated in (True, False)]
    assert widths[0] < 0.7 * widths[1] and math.isfinite(widths[0])
