"""Differences of two models on the problems that both were given, with intervals and p-values that agree with each other.

Two models fail on the same hard problems, so the difference of their rates is surer than the two rates are. What counts is the
problems on which they differ:

- One sample a problem: Tango's score interval. Its test of no difference is McNemar's, so that the interval leaves 0 out
  exactly where the p-value is below 0.05. Two models that differ nowhere keep an interval with a width.
- Several samples a problem: the same with the effective number of problems, as `intervals.rate` has it: the variance of the
  problems' differences says how many pairs of single samples they are worth.
- The average over tasks: MOVER over the tasks' own differences; its p-value is found where a limit of the interval meets 0.

Sources:

- Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample design.
  Stat Med 17:891.
- Yang, Sun & Hardin (2012), Confidence intervals for the difference of marginal probabilities in clustered matched-pair binary
  data. Pharm Stat 11:386 (score intervals with an effective sample size).
- Fagerland, Lydersen & Laake (2014), Recommended tests and confidence intervals for paired binomial proportions.
  Stat Med 33:2850.
- Holm (1979), A simple sequentially rejective multiple test procedure. Scand J Stat 6:65.
- Benjamini & Hochberg (1995), Controlling the false discovery rate. J R Stat Soc B 57:289.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dgr_lightning.statistics.intervals import Estimate, Z, effective_number

OutcomesById = Mapping[str, Sequence[float]]
"""id of a problem → sample → whether it succeeded, or its score in 0 … 1; at least one sample a problem."""

Pair = tuple[OutcomesById, OutcomesById]
"""Outcomes of two models, a and b, on one task. Only problems that both have count; their samples may differ in number."""

_MOST_SURE = 40.0
"""In standard errors: beyond, a p-value is 0 in double precision."""


def paired_difference(a: OutcomesById, b: OutcomesById) -> Estimate:
    """Returns b minus a on one task, over the problems that both have; n is their number.

    Without a problem in common it is undefined.
    """
    return macro_difference([(a, b)])


def p_value(a: OutcomesById, b: OutcomesById) -> float | None:
    """Returns the two-sided p-value of "a and b do not differ"; None without a problem in common."""
    return macro_p_value([(a, b)])


def macro_difference(tasks: Sequence[Pair]) -> Estimate:
    """Returns b minus a, averaged over tasks with equal weights; n is the number of problems that both have, over all tasks.

    No task, or one without a problem in common, makes it undefined.
    """
    tables = [_Table.of(a, b) for a, b in tasks]
    n = sum(table.n for table in tables)
    if not tables or not all(table.n for table in tables):
        return Estimate(None, None, None, n)
    value = _value(tables)
    below, above = _distances(tables, Z)
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above), n)


def macro_p_value(tasks: Sequence[Pair]) -> float | None:
    """Returns the two-sided p-value of "the averages of a and b do not differ"; None where the difference is undefined.

    It is below 0.05 exactly where the interval of `macro_difference` leaves out 0.
    """
    tables = [_Table.of(a, b) for a, b in tasks]
    if not tables or not all(table.n for table in tables):
        return None
    value = _value(tables)
    if value == 0:
        return 1.0
    if len(tables) == 1:
        return math.erfc(tables[0].z_of_no_difference / math.sqrt(2))
    side = 0 if value > 0 else 1
    inside, outside = 0.0, _MOST_SURE  # of z: the limit has not reached 0, it has passed it
    for _ in range(60):
        z = (inside + outside) / 2
        inside, outside = (z, outside) if _distances(tables, z)[side] < abs(value) else (inside, z)
    return math.erfc(inside / math.sqrt(2))


def adjusted(p_values: Sequence[float | None], method: str = "holm") -> list[float | None]:
    """Returns p-values corrected for their number, in their order; None (an undefined comparison) stays and does not count.

    Args:
        p_values: of all the comparisons that are shown together.
        method: `holm` bounds the chance of a single false finding among them (any dependence is allowed); `fdr` is Benjamini
            and Hochberg's, which bounds the expected share of false ones among the findings (for independent or positively
            dependent comparisons).

    Raises:
        ValueError: another method.
    """
    known = [p for p in p_values if p is not None]
    if method == "holm":
        corrected = _holm(known)
    elif method == "fdr":
        from scipy.stats import false_discovery_control

        corrected = [float(p) for p in false_discovery_control(known)] if known else []
    else:
        raise ValueError(f"{method!r}: expected holm or fdr")
    rest = iter(corrected)
    return [None if p is None else next(rest) for p in p_values]


def _holm(p_values: Sequence[float]) -> list[float]:
    # Neither scipy nor numpy has it; with statsmodels it would be multipletests(p_values, method="holm").
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


# --- Tango's interval -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """What two models share and do not share on a task.

    Attributes:
        n: problems that both have.
        gained: share of pairs of single samples of which b's alone succeeded.
        lost: the share of which a's alone did.
        effective: number of problems with one sample each that would tell as much.
    """

    n: int
    gained: float
    lost: float
    effective: float

    @classmethod
    def of(cls, a: OutcomesById, b: OutcomesById) -> _Table:
        shared = [id_ for id_ in a if id_ in b]
        n = len(shared)
        if n == 0:
            return cls(0, 0.0, 0.0, 0.0)
        means = [(sum(a[id_]) / len(a[id_]), sum(b[id_]) / len(b[id_])) for id_ in shared]
        gained = math.fsum((1 - before) * after for before, after in means) / n
        lost = math.fsum(before * (1 - after) for before, after in means) / n
        single = gained + lost - (gained - lost) ** 2  # variance of the difference of two single samples
        samples = max(sum(len(side[id_]) for id_ in shared) for side in (a, b))
        return cls(n, gained, lost, effective_number([after - before for before, after in means], single, samples))

    @property
    def difference(self) -> float:
        return self.gained - self.lost

    @property
    def z_of_no_difference(self) -> float:
        """McNemar's statistic, without its sign."""
        apart = self.gained + self.lost
        return abs(self.difference) * math.sqrt(self.effective / apart) if apart else 0.0

    def limit(self, z: float, end: float) -> float:
        """Returns the difference farthest towards `end`, -1 or 1, that the score test does not reject at `z`."""
        inside, outside = self.difference, end
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if self._is_inside(middle, z) else (inside, middle)
        return inside

    def _is_inside(self, difference: float, z: float) -> bool:
        # The share of lost ones given the difference, by maximum likelihood: the larger root of 2x² + b·x + c = 0.
        b = -self.gained - self.lost + (2 - self.gained + self.lost) * difference
        c = -self.lost * difference * (1 - difference)
        lost = (math.sqrt(max(0.0, b * b - 8 * c)) - b) / 4
        variance = max(0.0, 2 * lost + difference * (1 - difference))
        return self.effective * (self.difference - difference) ** 2 <= z * z * variance


def _value(tables: Sequence[_Table]) -> float:
    return math.fsum(table.difference for table in tables) / len(tables)


def _distances(tables: Sequence[_Table], z: float) -> tuple[float, float]:
    """Returns how far the limits of the average lie below and above it, by MOVER from those of each task."""
    below = math.hypot(*(table.difference - table.limit(z, -1.0) for table in tables)) / len(tables)
    above = math.hypot(*(table.limit(z, 1.0) - table.difference for table in tables)) / len(tables)
    return below, above
