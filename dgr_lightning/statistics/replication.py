"""A rate over bases and seeds: its mean, what the mean is known to, and what the next run will show.

Runs are nested: each base (a miniature of its own pretraining seed) is trained with several seeds. Bases differ more than the
seeds of one base do, so the base is the unit of replication. The interval of the mean is Student's, over the means of the
bases, with one degree of freedom less than there are bases. (A percentile bootstrap over five bases covers 84 %, not 95 %.)

The prediction interval is where one new run, on a new base with a new seed, falls in 95 % of cases. Its variance is that of a
new base, of a seed within it, and of the mean itself; its degrees of freedom are Satterthwaite's (1946), An approximate
distribution of estimates of variance components. Biometrics Bulletin 2:110.

Neither knows how much a rate depends on which problems were drawn, because all runs answer the same ones. The mean of the runs'
own widths is added to both in quadrature, as in MOVER (Zou and Donner 2008, Stat Med 27:1693), and not divided by the number of
runs. That errs on the wide side: the spread of the runs already holds some of the problems' noise. It also keeps an interval
from having no width where all runs agree.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dgr_lightning.statistics.intervals import Estimate, half_widths

_QUANTILE = 0.975


@dataclass(frozen=True)
class Replicated:
    """A rate over several bases and seeds.

    Attributes:
        mean: over the means of the bases, with its 95 % interval; without one for a single base. `n` is the number of problems.
        prediction: limits of the 95 % interval of one new run, on a new base with a new seed; None for a single base.
        num_bases: bases that it rests on.
        num_runs: runs that it rests on.
    """

    mean: Estimate
    prediction: tuple[float, float] | None
    num_bases: int
    num_runs: int

    def to_json(self) -> dict[str, Any]:
        """Returns the estimate as in summary.json, with `prediction`, `bases` and `runs`."""
        limits = None if self.prediction is None else list(self.prediction)
        return asdict(self.mean) | {"prediction": limits, "bases": self.num_bases, "runs": self.num_runs}


def replicate(bases: Sequence[Sequence[Estimate]], bounds: tuple[float, float] = (0.0, 1.0)) -> Replicated:
    """Returns the mean of a quantity over bases.

    Args:
        bases: base → seed → the quantity of that run; at least one base, each with at least one run. A quantity that is
            undefined in one run is undefined over all.
        bounds: of the quantity; no limit lies beyond them.
    """
    runs = [run for seeds in bases for run in seeds]
    n = min(run.n for run in runs)
    sides = half_widths(runs)
    if sides is None:
        return Replicated(Estimate(None, None, None, n), None, len(bases), len(runs))
    below, above = statistics.fmean(sides[1]), statistics.fmean(sides[2])
    values = [[run.value or 0.0 for run in seeds] for seeds in bases]
    means = [statistics.fmean(seeds) for seeds in values]
    mean = statistics.fmean(means)
    if len(bases) == 1:
        return Replicated(Estimate(mean, None, None, n), None, 1, len(runs))
    own, new = _half_widths(means, values)
    new = max(new, own)  # with few and uneven seeds, the estimated degrees of freedom may say otherwise

    def limits(half: float) -> tuple[float, float]:
        return max(bounds[0], mean - math.hypot(half, below)), min(bounds[1], mean + math.hypot(half, above))

    return Replicated(Estimate(mean, *limits(own), n), limits(new), len(bases), len(runs))


def _half_widths(means: Sequence[float], values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns half the widths of the mean's interval and of one new run's, from the spread of bases and seeds.

    The variance of the bases' means holds σ²(base) + σ²(seed) / seeds; a single new run varies by σ²(base) + σ²(seed).
    """
    num_bases = len(means)
    between = statistics.variance(means)
    freedom_within = sum(len(seeds) - 1 for seeds in values)
    within = sum((value - statistics.fmean(seeds)) ** 2 for seeds in values for value in seeds) / max(1, freedom_within)
    per_base = statistics.harmonic_mean([len(seeds) for seeds in values])
    parts = [(between * (1 + 1 / num_bases), num_bases - 1), (within * (1 - 1 / per_base), freedom_within)]
    variance = math.fsum(part for part, _ in parts)
    freedom = variance**2 / math.fsum(part**2 / df for part, df in parts if part) if variance else 1.0
    return (
        _student(num_bases - 1) * math.sqrt(between / num_bases),
        _student(freedom) * math.sqrt(variance),
    )


def _student(freedom: float) -> float:
    """Returns quantile 0.975 of Student's t."""
    from scipy.stats import t

    return float(t.ppf(_QUANTILE, freedom))
