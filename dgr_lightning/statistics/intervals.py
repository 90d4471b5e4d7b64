"""Rates and their 95 % intervals: one task, the average of several, differences and ratios of two models.

A single rate gets Wilson's score interval. Everything made of several rates gets its limits from theirs by MOVER, the method of
variance estimates recovery: no normal approximation around a rate of 0 or 1, no bootstrap, no seed. Differences on the same
problems are `paired.py`'s. `benchmarks/coverage.py` measures how often these intervals hold the truth (docs/statistics.md).

- Wilson (1927), Probable inference, the law of succession, and statistical inference. JASA 22:209.
- Newcombe (1998), Interval estimation for the difference between independent proportions (method 10). Stat Med 17:873.
- Zou & Donner (2008), Construction of confidence limits about effect measures: a general approach. Stat Med 27:1693.
- Donner & Zou (2012), Closed-form confidence intervals for functions of the normal mean and standard deviation (MOVER-R).
  Stat Methods Med Res 21:347.
- Effective sample size as in Korn & Graubard (1998), Confidence intervals for proportions with small expected number of
  positive counts estimated from survey data. Surv Methodol 24:193.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Z = 1.959963984540054
"""Quantile 0.975 of the standard normal distribution."""

Outcomes = Sequence[Sequence[bool]]
"""problem → sample → whether it succeeded. Problems may differ in their number of samples; each has at least one."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % interval; undefined values are None.

    Attributes:
        value: the estimate.
        low: lower limit.
        high: upper limit; None beside a value: unbounded.
        n: number of problems that it rests on, whatever the number of samples per problem.
        judge: whose rate it is, where a judge says it; rates of different judges have no average and no difference.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    judge: str | None = None

    def to_json(self) -> dict[str, float | int | str | None]:
        """Returns the estimate as the JSON object of summary.json; `judge` stands in it where there is one."""
        found = asdict(self)
        return found if self.judge is not None else {name: value for name, value in found.items() if name != "judge"}

    def scaled(self, factor: float) -> Estimate:
        """Returns the estimate of `factor` times the quantity; a negative factor exchanges the limits."""
        low, high = (self.low, self.high) if factor >= 0 else (self.high, self.low)
        value, low, high = (None if end is None else factor * end for end in (self.value, low, high))
        return Estimate(value, low, high, self.n, self.judge)


def rate(outcomes: Outcomes) -> Estimate:
    """Returns the mean success rate over problems (pass@1 averaged over samples) with Wilson's interval.

    The samples of a problem are not independent trials. Wilson's formula therefore takes the effective number of trials: n
    where every problem is all or nothing, the number of samples where problems do not differ, and never outside these two. With
    one sample per problem that is Wilson's interval itself.

    Args:
        outcomes: a list of outcomes per problem; no problem at all gives an undefined estimate.
    """
    return mean_share([sum(samples) / len(samples) for samples in outcomes], sum(map(len, outcomes)))


def mean_share(shares: Sequence[float], samples: int) -> Estimate:
    """Returns the mean over problems of a share in 0 … 1, such as a problem's own rate or its pass@k, likewise.

    Args:
        shares: one a problem.
        samples: that they were found from, over all problems.
    """
    n = len(shares)
    if n == 0:
        return Estimate(None, None, None, 0)
    p = math.fsum(shares) / n
    return Estimate(p, *wilson(p, effective_number(shares, p * (1 - p), samples)), n)


def pooled_rate(outcomes: Outcomes) -> Estimate:
    """Returns the success rate over all samples of all problems together, with Wilson's interval, clustered by problem.

    For a rate among some of the outputs, of which a problem may have none: such problems are left out, and n counts the others.
    It is a ratio of two sums; its variance between problems is that of the residuals (Cochran, Sampling Techniques, 1977, 6.3).
    """
    drawn = [samples for samples in outcomes if samples]
    n, total = len(drawn), sum(map(len, drawn))
    if n == 0:
        return Estimate(None, None, None, 0)
    p = sum(map(sum, drawn)) / total
    residuals = [(sum(samples) - p * len(samples)) * n / total for samples in drawn]
    least = total**2 / sum(len(samples) ** 2 for samples in drawn)  # where every problem is all or nothing
    return Estimate(p, *wilson(p, effective_number(residuals, p * (1 - p), total, least)), n)


def effective_number(values: Sequence[float], single: float, samples: int, least: float | None = None) -> float:
    """Returns how many problems with a single sample tell as much as these problems do.

    It is n · single / s², with s² the variance between the problems' values, and lies between the number of problems and that
    of samples. Where a problem has several samples, s² is an estimate and no function of the mean: as in Korn and Graubard, the
    number is reduced by the square of the normal's quantile over Student's. Where nothing is known of the variance (one
    problem, or `single` is 0) it is the number of problems.

    Args:
        values: a number a problem, such as its rate.
        single: the variance that such numbers have where each comes from one sample.
        samples: their number over all problems.
        least: the number that it cannot fall below; None: that of problems.
    """
    n = len(values)
    least = float(n) if least is None else least
    if n < 2 or single <= 0:
        return least
    mean = math.fsum(values) / n
    between = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    effective = n * single / between if between > 0 else math.inf
    if samples > n:
        effective *= (Z / student(n - 1)) ** 2
    return min(max(effective, least), float(samples))


def student(freedom: float) -> float:
    """Returns quantile 0.975 of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def wilson(p: float, n: float) -> tuple[float, float]:
    """Returns Wilson's score interval of a rate `p` over `n` trials (any number above 0)."""
    centre = p + Z * Z / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # Exact at the ends, where rounding would leave a limit of 1e-17 on the wrong side of the estimate.
    low = 0.0 if p == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if p == 1 else min(1.0, (centre + half) / scale)
    return min(low, p), max(high, p)


def half_widths(rates: Sequence[Estimate]) -> tuple[list[float], list[float], list[float]] | None:
    """Returns values, and the widths of their intervals below and above them; None where a rate is undefined."""
    values, below, above = [], [], []
    for one in rates:
        if one.value is None or one.low is None or one.high is None:
            return None
        values.append(one.value)
        below.append(one.value - one.low)
        above.append(one.high - one.value)
    return values, below, above


def macro(rates: Sequence[Estimate]) -> Estimate:
    """Returns the unweighted average of independent rates with its MOVER interval; n is the sum of theirs.

    No rates, or an undefined one among them, make it undefined; so do rates of different judges.
    """
    n = sum(one.n for one in rates)
    if not rates:
        return Estimate(None, None, None, 0)
    judges = {one.judge for one in rates}
    judge = rates[0].judge if len(judges) == 1 else None
    sides = half_widths(rates)
    if sides is None or len(judges) > 1:
        return Estimate(None, None, None, n, judge)
    values, below, above = sides
    value = math.fsum(values) / len(values)
    low, high = value - math.hypot(*below) / len(values), value + math.hypot(*above) / len(values)
    return Estimate(value, max(0.0, low), min(1.0, high), n, judge)


def difference(base: Estimate, tuned: Estimate) -> Estimate:
    """Returns tuned minus base of two independent estimates with its MOVER interval; for single rates that is Newcombe's.

    Undefined between the rates of two judges. Of two models that were given the same problems it is too wide:
    `paired.macro_difference` uses that they were.

    Args:
        base: a rate, or a macro average of rates.
        tuned: the same of the other model.
    """
    n = min(base.n, tuned.n)
    sides = half_widths([base, tuned])
    if sides is None or base.judge != tuned.judge:
        return Estimate(None, None, None, n)
    (p, q), below, above = sides
    value = q - p
    return Estimate(value, value - math.hypot(below[1], above[0]), value + math.hypot(above[1], below[0]), n, base.judge)


def relative_percent(base: Estimate, tuned: Estimate, change: Estimate | None = None) -> Estimate:
    """Returns the change in per cent of the base, 100 · (tuned - base) / base, with its MOVER-R interval.

    Undefined where the base is 0; without an upper limit where the base's interval reaches down to 0. It leaves out 0 where the
    interval of the difference does.

    Args:
        base: a rate above 0, or a macro average of rates.
        tuned: the same of the other model.
        change: tuned minus base where the two are paired: its interval tells how far they go together. None: independent.
    """
    change = change or difference(base, tuned)
    n = change.n
    sides, apart = half_widths([base, tuned]), half_widths([change])
    if sides is None or apart is None or base.value == 0:
        return Estimate(None, None, None, n)
    (p, q), below, above = sides
    # MOVER's squared distance of a difference's limit is first² - 2 · covariance + second²: solved for the covariance.
    low_covariance = (below[1] ** 2 + above[0] ** 2 - apart[1][0] ** 2) / 2
    high_covariance = (above[1] ** 2 + below[0] ** 2 - apart[2][0] ** 2) / 2
    # A ratio r is inside the interval where 0 is inside that of tuned - r · base; the limits are the roots of a quadratic.
    low = _ratio_low(q, below[1], p, above[0], low_covariance)
    high = _ratio_high(q, above[1], p, below[0], high_covariance)
    return Estimate(100 * (q / p - 1), 100 * (low - 1), None if high is None else 100 * (high - 1), n)


def _ratio_low(q: float, below: float, p: float, above: float, covariance: float) -> float:
    """Returns the smallest r >= 0 with q - r·p <= the distance from `below` of q and r times `above` of p."""
    b = q * p - covariance
    c = max(0.0, q * q - below * below)
    if c == 0:
        return 0.0
    # The root that stays right when the leading coefficient p² - above² is zero or negative.
    return c / (b + math.sqrt(max(0.0, b * b - (p * p - above * above) * c)))


def _ratio_high(q: float, above: float, p: float, below: float, covariance: float) -> float | None:
    """Returns the largest such r for the upper limit; None: every larger one is inside."""
    a = p * p - below * below
    if a <= 1e-12:
        return None
    b = q * p - covariance
    return (b + math.sqrt(max(0.0, b * b - a * (q * q - above * above)))) / a
