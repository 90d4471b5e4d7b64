"""Every interval that is shown holds the truth in about 19 of 20 cases: few rounds here, thousands in docs/statistics.md."""

import math

import numpy as np
import pytest

from benchmarks.coverage import SIZES, cases, coverage, exact_coverage, picture, table

CASES = {case.name: case for case in cases()}
FAST = (
    "rate, 1 sample",
    "rate, 8 samples, a 0.5",
    "macro average of 3 tasks, 1 sample",
    "independent difference, 1 sample",
    "paired difference, 1 sample, r 0.5",
    "paired difference, 4 samples, r 0.9",
    "paired difference of averages of 3 tasks, r 0.7",
    "relative change in per cent, paired, r 0.7",
    "mean over 5 bases × 2 seeds, as in the headline spread",
    "one new run after 5 × 2, as in the headline spread",
)


def room(rounds):
    """Four standard errors of a coverage of 95 % from so many rounds, in shares."""
    return 4 * math.sqrt(0.95 * 0.05 / rounds)


@pytest.mark.parametrize("name", FAST)
def test_intervals_over_30_problems_cover(name):
    rounds = 150
    assert 0.93 - room(rounds) <= coverage(CASES[name], 30, rounds) <= min(1.0, 0.97 + room(rounds))


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_every_interval_covers_between_93_and_97_per_cent(name, n):
    rounds = 600 if n > 1000 else 1500
    error = math.sqrt(0.95 * 0.05 / rounds)
    assert 0.93 - 3 * error <= coverage(CASES[name], n, rounds) <= 0.97 + 3 * error


def test_a_rate_near_nought_is_never_covered_less_than_wilsons_minimum():
    # Agresti & Coull (1998), Am Stat 52:119: 0.838 in the limit, where np is 0.18 and a single success leaves the truth out.
    for n in SIZES:
        found = [exact_coverage(n, p) for p in np.geomspace(1e-4, 0.5, 300)]
        assert 0.82 < min(found) < 0.90
        assert np.mean([exact_coverage(n, p) for p in np.linspace(0.05, 0.95, 91)]) == pytest.approx(0.95, abs=0.01)


def test_the_table_and_the_picture_are_drawn():
    lines = list(table([CASES["rate, 1 sample"]], [5, 30], 20))
    assert lines[0] == "| interval | 5 problems | 30 problems |" and lines[2].startswith("| rate, 1 sample | ")
    drawn = picture([5, 30], 2)
    assert drawn.startswith("<svg") and "Paired difference" in drawn and "30 problems" in drawn
