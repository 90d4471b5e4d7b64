"""Means per token with bootstrap intervals, and distributions as quantiles and a histogram with the same bins for every set.

Units (examples, prompts) are independent, the tokens inside one are not. So a mean per token is a ratio of two sums over units,
and its interval comes from resampling whole units: the studentised bootstrap (bootstrap-t) of Efron & Tibshirani, "An
Introduction to the Bootstrap" (1993), section 12.5, with the standard error of a ratio (Cochran, "Sampling Techniques", 1977,
section 6.3) and a fixed seed. Percentile limits, bias-corrected or not, hold the truth too rarely for 30 skewed units
(docs/statistics.md). Fewer than ten units are too few to resample: they get Student's interval.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dgr_lightning.statistics.intervals import Estimate, student

QUANTILES = (5, 25, 50, 75, 95)
"""In per cent."""

WIDTH = 0.05
"""Width of a histogram's bins."""

_RESAMPLES = 1000
_DRAWN_AT_ONCE = 2**18
_FEWEST = 10
"""Units."""


def ratio_of_sums(totals: ArrayLike, weights: ArrayLike, most: float = math.inf) -> Estimate:
    """Returns the sum of `totals` over the sum of `weights`, with the 95 % interval over units.

    Args:
        totals: (units,), sums over each unit, such as the NLL of its tokens.
        weights: (units,), such as the number of its tokens; units of weight 0 are left out.
        most: what no ratio can exceed; where no total is negative, the ratio cannot be either.

    Returns:
        The ratio; n is the number of units with weight. Without any it is undefined, with one it has no interval.
    """
    size, total = np.asarray(weights, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    size, total = size[size > 0], total[size > 0]
    n = len(size)
    if n == 0:
        return Estimate(None, None, None, 0)
    value = float(total.sum() / size.sum())
    if n == 1:
        return Estimate(value, None, None, 1)
    below, above = _distances(total - value * size, size)
    low = value - below if total.min() < 0 else max(0.0, value - below)
    return Estimate(value, low, max(value, min(most, value + above)), n)


def _distances(residuals: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """Returns how far the limits lie below and above a ratio.

    Args:
        residuals: (units,), each total minus the ratio times its weight.
        size: (units,), the weights.
    """
    n = len(size)
    error = math.sqrt(float((residuals**2).sum()) * n / (n - 1)) / float(size.sum())
    if n < _FEWEST or error == 0:
        return (student(n - 1) * error,) * 2
    columns = np.stack([residuals, size, residuals**2, residuals * size, size**2], axis=1)
    random, at_once = np.random.default_rng(0), max(1, _DRAWN_AT_ONCE // n)
    sums = np.empty((_RESAMPLES, 5))
    for begun in range(0, _RESAMPLES, at_once):
        number = min(at_once, _RESAMPLES - begun)
        # How often each unit is drawn says all of a resample.
        drawn = random.integers(0, n, (number, n)) + n * np.arange(number)[:, None]
        sums[begun : begun + number] = np.bincount(drawn.ravel(), minlength=number * n).reshape(number, n) @ columns
    e, w, ee, ew, ww = sums.T
    moved = e / w  # of the ratio
    errors = np.sqrt(np.maximum(0.0, ee - 2 * moved * ew + moved**2 * ww) * n / (n - 1)) / w
    # A resample of equal units tells nothing of the spread.
    told = errors > 1e-9 * error
    if told.mean() < 0.975:
        return (student(n - 1) * error,) * 2
    low, high = np.percentile(moved[told] / errors[told], (2.5, 97.5))
    return max(0.0, float(high)) * error, max(0.0, -float(low)) * error


def distribution(values: ArrayLike, low: float = 0.0, high: float | None = None) -> dict[str, Any]:
    """Returns the distribution of values in few numbers, JSON-able.

    Args:
        values: (units,), at least one, none below `low`.
        low: where the first bin begins.
        high: the largest possible value, counted in the bin that ends there; None: unbounded.

    Returns:
        `quantiles`: per cent, as text → value; `histogram`: `low`, `width` and `counts`, bin i from low + i · width up to the
        next. Bins reach as far as the largest value, so that any two histograms have bins in common.
    """
    array = np.asarray(values, dtype=np.float64)
    bins = np.maximum(np.floor((array - low) / WIDTH + 1e-9).astype(int), 0)
    if high is not None:
        bins = np.minimum(bins, round((high - low) / WIDTH) - 1)
    return {
        "quantiles": {str(q): float(np.percentile(array, q)) for q in QUANTILES},
        "histogram": {"low": low, "width": WIDTH, "counts": np.bincount(bins).tolist()},
    }
