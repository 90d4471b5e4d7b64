"""A rate over bases and seeds: its mean, what the mean is known to, and what the next run will show.

Runs are nested: each base (a miniature of its own pretraining seed) is trained with several seeds. Bases differ more than the
seeds of one base do, so the base is the unit of replication. The interval of the mean is Student's, over the means of the
bases, with one degree of freedom less than there are bases. (A percentile bootstrap over five bases covers 84 %, not 95 %.)

The prediction interval is where one new run, on a new base with a new seed, measured on the same problems, falls in 95 % of
cases. Its variance is that of a new base, of a seed within it, and of the mean itself; its degrees of freedom are
Satterthwaite's (1946), An approximate distribution of estimates of variance components. Biometrics Bulletin 2:110.

All runs answer the same problems. What a run's rate owes to which problems were drawn is in part common to all runs (problems
that are hard for every model) and in part its own (luck, and what one base finds hard and another does not). The second part
is in the spread of the runs already. The first is not: its share of a run's variance comes from the runs' outcomes by problem,
as the variance component of problems in a two-way table of bases and problems without replication (Searle, Casella &
McCulloch, Variance Components, 1992, chapter 4). The mean of the runs' own widths, times the root of that share, is added in
quadrature, as in MOVER (Zou and Donner 2008, Stat Med 27:1693). Where the outcomes are not known the share is taken to be 1
and the prediction is widened as well, which errs on the wide side; so it is where runs agree everywhere, which keeps an
interval from having no width.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dgr_lightning.statistics.intervals import Estimate, half_widths, student


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


def replicate(
    bases: Sequence[Sequence[Estimate]], bounds: tuple[float, float] = (0.0, 1.0), shared: float | None = None
) -> Replicated:
    """Returns the mean of a quantity over bases.

    Args:
        bases: base → seed → the quantity of that run; at least one base, each with at least one run. A quantity that is
            undefined in one run is undefined over all.
        bounds: of the quantity; no limit lies beyond them.
        shared: the share of a run's variance that its problems give to all runs alike, 0 … 1: `shared_variance`. None: it is
            not known, and both intervals err wide.
    """
    runs = [run for seeds in bases for run in seeds]
    n = min(run.n for run in runs)
    sides = half_widths(runs)
    if sides is None:
        return Replicated(Estimate(None, None, None, n), None, len(bases), len(runs))
    below, above = (math.sqrt(1.0 if shared is None else shared) * statistics.fmean(side) for side in sides[1:])
    values = [[run.value or 0.0 for run in seeds] for seeds in bases]
    means = [statistics.fmean(seeds) for seeds in values]
    mean = statistics.fmean(means)
    if len(bases) == 1:
        return Replicated(Estimate(mean, None, None, n), None, 1, len(runs))
    own, new = _half_widths(means, values)
    new = max(new, own)  # with few and uneven seeds, the estimated degrees of freedom may say otherwise

    def limits(half: float, below: float, above: float) -> tuple[float, float]:
        return max(bounds[0], mean - math.hypot(half, below)), min(bounds[1], mean + math.hypot(half, above))

    # Of a run on the same problems, their common part is known; unless nothing is, or the runs agree to the last problem.
    prediction = limits(new, 0.0, 0.0) if new and shared is not None else limits(new, below, above)
    return Replicated(Estimate(mean, *limits(own, below, above), n), prediction, len(bases), len(runs))


def shared_variance(tasks: Sequence[Sequence[Sequence[Sequence[float]]]]) -> float:
    """Returns the share of a run's variance over problems that is common to runs on different bases, in 0 … 1.

    Args:
        tasks: task → base → seed → problem → the quantity; the same problems in the same order for every run. The quantity of
            a run is the mean over tasks of its mean over problems.

    Returns:
        1 where there is one base, or where the quantity varies over no problem.
    """
    common = whole = 0.0
    for bases in tasks:
        problems = len(bases[0][0])
        if len(bases) < 2 or problems < 2:
            return 1.0
        table = [[math.fsum(values) / len(seeds) for values in zip(*seeds, strict=True)] for seeds in bases]
        by_problem = [math.fsum(values) / len(bases) for values in zip(*table, strict=True)]
        common += (statistics.variance(by_problem) - _interaction(table, by_problem) / len(bases)) / problems
        whole += statistics.fmean(statistics.variance(run) for seeds in bases for run in seeds) / problems
    return min(1.0, max(0.0, common / whole)) if whole > 0 else 1.0


def _interaction(table: Sequence[Sequence[float]], by_problem: Sequence[float]) -> float:
    """Returns the variance of what neither base nor problem alone explains, from base → problem → mean."""
    mean = math.fsum(by_problem) / len(by_problem)
    squares = [
        (value - row_mean - column + mean) ** 2
        for row, row_mean in ((row, math.fsum(row) / len(row)) for row in table)
        for value, column in zip(row, by_problem, strict=True)
    ]
    return math.fsum(squares) / ((len(table) - 1) * (len(by_problem) - 1))


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
        student(num_bases - 1) * math.sqrt(between / num_bases),
        student(freedom) * math.sqrt(variance),
    )
