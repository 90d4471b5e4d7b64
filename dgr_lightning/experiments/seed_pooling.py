"""The mean of a rate over seeds, with its 95 % interval.

The mean over S seeds is uncertain in two ways: training differs from seed to seed, and the problems are a sample. The seeds'
part is Student's t with S - 1 degrees of freedom on their values. The problems' part is the mean of the runs' own one-sided
widths, not divided by S, because all seeds answer the same problems. The two are added in quadrature on either side, as in
MOVER (Zou and Donner 2008, Stat Med 27:1693). That errs on the wide side: the seeds' part already holds some of the problems'
noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from dgr_lightning.statistics.intervals import Estimate, half_widths

# Quantile 0.975 of Student's t for 1, 2, … degrees of freedom, and of the normal distribution, taken beyond them.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_NORMAL = 1.96


def pool(rates: Sequence[Estimate]) -> Estimate:
    """Returns the mean of one rate over seeds; n is the smallest of theirs.

    Args:
        rates: the rate of each seed's run, at least one; an undefined one makes the mean undefined.
    """
    n = min(rate.n for rate in rates)
    sides = half_widths(rates)
    if sides is None:
        return Estimate(None, None, None, n)
    values, below, above = sides
    mean, seeds = statistics.fmean(values), _seeds_half_width(values)
    low = mean - math.hypot(seeds, statistics.fmean(below))
    high = mean + math.hypot(seeds, statistics.fmean(above))
    return Estimate(mean, max(0.0, low), min(1.0, high), n)


def _seeds_half_width(values: Sequence[float]) -> float:
    """Returns half the width of Student's interval of a mean; 0 for a single value, which tells nothing of its spread."""
    freedom = len(values) - 1
    if freedom == 0:
        return 0.0
    quantile = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
