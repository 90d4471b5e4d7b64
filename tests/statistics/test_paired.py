"""Paired differences: published values, agreement of interval and p-value, problems in common, and corrections."""

import math
from random import Random

import pytest
from scipy.optimize import minimize_scalar

from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.statistics.paired import adjusted, macro_difference, macro_p_value, p_value, paired_difference


def counts(both, gained, lost, neither):
    """Two models with one sample a problem, by their fourfold table."""
    cells = [(1, 1)] * both + [(0, 1)] * gained + [(1, 0)] * lost + [(0, 0)] * neither
    return tuple({str(i): [bool(cell[side])] for i, cell in enumerate(cells)} for side in (0, 1))


def test_one_sample_a_problem_has_tangos_interval():
    # Fagerland, Lydersen & Laake (2014): airway hyper-responsiveness before and after a transplantation, by Tango's method.
    found = paired_difference(*counts(1, 7, 1, 12))
    assert found.n == 21
    assert (found.low, found.high) == (pytest.approx(0.026, abs=5e-4), pytest.approx(0.517, abs=5e-4))


@pytest.mark.parametrize("table", [(43, 1, 0, 0), (20, 6, 2, 12), (5, 0, 9, 16)])
def test_limits_are_where_the_score_under_the_likeliest_table_is_that_of_95_per_cent(table):
    both, gained, lost, neither = table
    n, found = sum(table), paired_difference(*counts(*table))
    for limit in (found.low, found.high):
        # The likelihood of the table with P(gained) - P(lost) held at the limit, over P(lost).
        def loss(share, limit=limit):
            return -sum(
                count * math.log(max(p, 1e-12))
                for count, p in ((lost, share), (gained, share + limit), (both + neither, 1 - 2 * share - limit))
            )

        share = minimize_scalar(loss, bounds=(max(0.0, -limit), (1 - limit) / 2), method="bounded", options={"xatol": 1e-10}).x
        score = (gained - lost - n * limit) / math.sqrt(n * (2 * share + limit - limit**2))
        assert abs(score) == pytest.approx(1.96, abs=1e-3)


def test_the_p_value_of_one_sample_a_problem_is_mcnemars():
    z = (12 - 3) / math.sqrt(15)
    assert p_value(*counts(40, 12, 3, 5)) == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert p_value(*counts(5, 0, 0, 5)) == 1.0


@pytest.mark.parametrize("samples", [(1, 1), (4, 4), (2, 8)])
@pytest.mark.parametrize("tasks", [1, 3])
def test_interval_and_p_value_agree(samples, tasks):
    random, sides = Random(1), []

    def drawn():
        levels = [random.random() for _ in range(25)]
        return tuple(
            {str(i): [random.random() < level + shift for _ in range(number)] for i, level in enumerate(levels)}
            for number, shift in zip(samples, (0.0, 0.15), strict=True)
        )

    for _ in range(60):
        pairs = [drawn() for _ in range(tasks)]
        found, p = macro_difference(pairs), macro_p_value(pairs)
        assert -1 <= found.low <= found.value <= found.high <= 1
        assert (p < 0.05) == (found.low > 0 or found.high < 0)
        sides.append(p < 0.05)
    assert sum(sides) > 3


def test_exchanging_the_models_turns_the_sign():
    a, b = counts(30, 9, 4, 7)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert p_value(a, b) == p_value(b, a)


def test_models_that_differ_nowhere_keep_a_doubt_that_shrinks_with_the_problems():
    few, many = paired_difference(*counts(20, 0, 0, 10)), paired_difference(*counts(2000, 0, 0, 1000))
    assert few.value == 0 and few.low == pytest.approx(-few.high)
    assert few.high == pytest.approx(3.84 / (30 + 3.84), abs=1e-3) and many.high < 0.002


def test_only_problems_that_both_have_count_whatever_their_order():
    a = {"x": [True], "y": [False], "only a": [False]}
    b = {"only b": [True], "y": [True], "x": [True]}
    assert (paired_difference(a, b).value, paired_difference(a, b).n) == (0.5, 2)
    assert paired_difference(a, {"z": [True]}) == Estimate(None, None, None, 0)
    assert p_value(a, {"z": [True]}) is None and macro_difference([]).value is None
    half = macro_difference([(a, b), (a, {"z": [True]})])
    assert (half.value, half.n) == (None, 2)


def test_samples_of_a_problem_are_no_problems_of_their_own():
    a, b = counts(30, 9, 4, 7)
    tenfold = [{id_: samples * 10 for id_, samples in side.items()} for side in (a, b)]
    assert paired_difference(*tenfold) == paired_difference(a, b)
    noise = paired_difference({str(i): [True, False] * 4 for i in range(30)}, {str(i): [False, True] * 4 for i in range(30)})
    assert noise.value == 0 and noise.high < 0.5 * paired_difference(*counts(8, 7, 7, 8)).high


def test_an_average_over_tasks_is_surer_than_each():
    pair = counts(60, 15, 5, 20)
    one, four = paired_difference(*pair), macro_difference([pair] * 4)
    assert four.value == pytest.approx(one.value) and four.n == 400
    assert four.high - four.value == pytest.approx((one.high - one.value) / 2)
    assert macro_p_value([pair] * 4) < p_value(*pair)


def test_corrections_for_many_comparisons():
    # Holm: 4·0.005, 3·0.01, 2·0.03, 0.04 → never below the one before.
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted([0.01, 0.04, 0.03, 0.005], "fdr") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjusted([None, 0.02, None, 0.9]) == [None, pytest.approx(0.04), None, 0.9]
    assert adjusted([]) == [] and adjusted([None], "fdr") == [None] and adjusted([0.7, 0.8]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="holm or fdr"):
        adjusted([0.1], "none")
