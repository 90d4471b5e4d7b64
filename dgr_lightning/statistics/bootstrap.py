"""Means per token with bootstrap intervals, and distributions as quantiles and a histogram with the same bins for every set.

Units (examples, prompts) are independent, the tokens inside one are not. So a mean per token is a ratio of two sums over units,
and its interval comes from resampling whole units: the bootstrap of Efron & Tibshirani, "An Introduction to the Bootstrap"
(1993), chapter 13, percentile limits, with a fixed seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dgr_lightning.statistics.intervals import Estimate

QUANTILES = (5, 25, 50, 75, 95)
"""In per cent."""

WIDTH = 0.05
"""Width of a histogram's bins."""

_RESAMPLES = 1000


def ratio_of_sums(totals: ArrayLike, weights: ArrayLike) -> Estimate:
    """Returns the sum of `totals` over the sum of `weights`, with the 95 % interval over units.

    Args:
        totals: (units,), sums over each unit, such as the NLL of its tokens.
        weights: (units,), such as the number of its tokens; units of weight 0 are left out.

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
    random, drawn = np.random.default_rng(0), np.empty(_RESAMPLES)
    for resample in range(_RESAMPLES):
        units = random.integers(0, n, n)
        drawn[resample] = total[units].sum() / size[units].sum()
    low, high = np.percentile(drawn, (2.5, 97.5))
    # Equal units give equal ratios up to rounding, which must not push a limit past the estimate.
    return Estimate(value, min(float(low), value), max(float(high), value), n)


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
