"""Intervals: published values, limits at the ends of the range, and coverage by simulation."""

from random import Random

import pytest

from dgr_lightning.statistics.intervals import (
    Estimate,
    difference,
    macro,
    mean_share,
    pooled_rate,
    rate,
    relative_percent,
    wilson,
)


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
    assert (noise.low, noise.high) == pytest.approx(wilson(0.5, 240))  # problems do not differ
    mixed = rate([[True] * 6 + [False] * 2] * 15 + [[True] * 2 + [False] * 6] * 15)
    assert noise.high < mixed.high < alike.high
    assert alike.n == noise.n == mixed.n == 30


def test_a_rate_averages_over_problems_however_many_samples_each_has():
    assert rate([[True] * 7, [False]]).value == 0.5


def test_a_rate_among_some_outputs_weighs_each_output_and_leaves_problems_without_one_out():
    assert pooled_rate([[True] * 7, [False], []]) == pooled_rate([[True] * 7, [False]])
    found = pooled_rate([[True] * 7, [False], []])
    assert (found.value, found.n) == (7 / 8, 2)
    assert pooled_rate([[], []]) == Estimate(None, None, None, 0)
    # As many outputs a problem: the mean over problems.
    even = [[True, False]] * 20 + [[True, True]] * 9 + [[False, False]] * 6
    assert pooled_rate(even) == rate(even)
    single = [[True]] * 9 + [[False]] * 4
    assert pooled_rate([*single, [], []]) == rate(single)


def test_a_mean_of_shares_is_surer_where_problems_hardly_differ():
    assert mean_share([True, False, True], 3) == rate([[True], [False], [True]])
    alike, apart = mean_share([0.4, 0.5, 0.6] * 10, 240), mean_share([0.0, 0.5, 1.0] * 10, 240)
    assert alike.value == apart.value == pytest.approx(0.5) and alike.high < apart.high


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


def test_a_relative_change_is_undefined_at_nought_and_unbounded_beside_it():
    assert relative_percent(share(0, 50), share(5, 50)) == Estimate(None, None, None, 50)
    gone = relative_percent(share(40, 50), share(0, 50))
    assert gone.value == gone.low == -100.0 and gone.high is not None and -100 < gone.high < -80
    same = relative_percent(share(40, 50), share(40, 50))
    assert same.value == 0 and same.low < 0 < same.high
    paired = relative_percent(share(40, 50), share(38, 50), Estimate(-0.04, -0.1, 0.02, 50))
    apart = relative_percent(share(40, 50), share(38, 50))
    assert paired.value == apart.value == pytest.approx(-5) and apart.low < paired.low < 0 < paired.high < apart.high
    certain = relative_percent(share(40, 50), share(38, 50), Estimate(-0.04, -0.1, 0.0, 50))
    assert certain.high == pytest.approx(0)  # where the difference's limit is 0, the ratio's is
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

    for draw, truth in ((several_samples, 2 / 3), (average, 0.7), (apart, -0.4)):
        assert 0.925 <= coverage(draw, truth) <= 0.985
