"""Agreement of a judge with labels: the four figures by hand, their intervals, and what is undefined."""

import math
from random import Random

import pytest

from dgr_lightning.scoring.agreement import agreement
from dgr_lightning.statistics.intervals import Z, wilson


def lists(both: int, judge_only: int, label_only: int, neither: int) -> tuple[list[bool], list[bool]]:
    counts = [(True, True)] * both + [(True, False)] * judge_only + [(False, True)] * label_only + [(False, False)] * neither
    return [a for a, _ in counts], [b for _, b in counts]


def test_the_four_figures_of_a_table():
    found = agreement(*lists(20, 5, 10, 15))
    assert (found.n, found.both, found.judge_only, found.label_only, found.neither) == (50, 20, 5, 10, 15)
    assert found.agreement.value == 0.7 and found.precision.value == 0.8 and found.recall.value == pytest.approx(2 / 3)
    assert found.kappa.value == pytest.approx(0.4), "the example of Cohen's kappa in every textbook"
    assert (found.agreement.low, found.agreement.high) == pytest.approx(wilson(0.7, 50))
    assert (found.precision.n, found.recall.n) == (25, 30)
    assert (found.precision.low, found.precision.high) == pytest.approx(wilson(0.8, 25))


def test_kappa_has_the_published_large_sample_variance():
    n, (both, judge_only, label_only, neither) = 10_000, (4000, 1000, 2000, 3000)
    found = agreement(*lists(both, judge_only, label_only, neither)).kappa
    # Fleiss, Cohen & Everitt 1969, equation 13, of this table.
    p = [[both / n, judge_only / n], [label_only / n, neither / n]]
    rows, columns = [sum(row) for row in p], [p[0][j] + p[1][j] for j in (0, 1)]
    po, pe = p[0][0] + p[1][1], sum(rows[i] * columns[i] for i in (0, 1))
    on = sum(p[i][i] * ((1 - pe) - (rows[i] + columns[i]) * (1 - po)) ** 2 for i in (0, 1))
    off = (1 - po) ** 2 * sum(p[i][j] * (columns[i] + rows[j]) ** 2 for i, j in ((0, 1), (1, 0)))
    variance = (on + off - (po * pe - 2 * pe + po) ** 2) / (n * (1 - pe) ** 4)
    assert found.high - found.low == pytest.approx(2 * Z * math.sqrt(variance), rel=2e-3)


def test_full_agreement_has_a_width_and_no_limit_beyond_1():
    found = agreement(*lists(10, 0, 0, 10))
    assert found.kappa.value == found.kappa.high == 1 and 0 < found.kappa.low < 0.9
    assert agreement(*lists(0, 10, 10, 0)).kappa.value == -1


@pytest.mark.parametrize("table", [(0, 0, 0, 12), (12, 0, 0, 0)])
def test_kappa_is_undefined_where_both_say_the_same_of_everything(table):
    found = agreement(*lists(*table))
    assert found.kappa.value is None and found.agreement.value == 1


def test_nothing_compared_is_undefined():
    found = agreement([], [])
    assert found.n == 0 and {found.agreement.value, found.precision.value, found.recall.value, found.kappa.value} == {None}


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError):
        agreement([True], [])
    with pytest.raises(ValueError, match="1 clusters of 2 texts"):
        agreement([True, False], [True, False], ["a"])


def test_copies_of_a_text_make_no_interval_narrower():
    random = Random(0)
    judged, labels = [random.random() < 0.5 for _ in range(60)], [random.random() < 0.5 for _ in range(60)]
    labels = [b if random.random() < 0.4 else a for a, b in zip(judged, labels, strict=True)]
    alone = agreement(judged, labels)
    copies = agreement(judged * 4, labels * 4, list(range(60)) * 4)
    for name in ("agreement", "precision", "recall", "kappa"):
        one, four = getattr(alone, name), getattr(copies, name)
        assert (four.value, four.low, four.high, four.n) == pytest.approx((one.value, one.low, one.high, one.n)), name
    assert agreement(judged * 4, labels * 4).kappa.low > alone.kappa.low
