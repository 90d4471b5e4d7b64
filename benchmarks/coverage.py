"""How often the 95 % intervals hold the truth, by simulation: a table, and the picture of what happens near 0 and 1.

    python -m benchmarks.coverage [--rounds 2000] [--problems 30 200 1319] [--only paired] [--picture docs/coverage.svg]

Every round draws problems and outputs anew and asks the project's own functions for the interval. Rates are drawn uniformly
from 0.05 … 0.95, so that a line is an average over them.

A problem is as hard as a normal number says: an output is right where probit(rate) + √a · problem + √(1 − a) · luck is above 0.
The mean over problems is then exactly the rate. `a`, the agreement of a problem's samples, is 0 where problems do not differ
and near 1 where each is all or nothing; `r` is the correlation of a problem's difficulty for two models. Bases and seeds shift
the probit by normal numbers of their own, and problems have a part that is common to all bases and one that is a base's own.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/coverage.py`

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from dgr_lightning.report import svg
from dgr_lightning.report.svg import Axis, Point, Series
from dgr_lightning.scoring.reducers import pass_at_k
from dgr_lightning.statistics.bootstrap import ratio_of_sums
from dgr_lightning.statistics.intervals import (
    Estimate,
    difference,
    macro,
    mean_share,
    pooled_rate,
    rate,
    relative_percent,
    wilson,
)
from dgr_lightning.statistics.paired import OutcomesById, Pair, macro_difference, paired_difference
from dgr_lightning.statistics.replication import replicate, shared_variance

SIZES = (30, 200, 1319)
Draw = Callable[[np.random.Generator, int, float], tuple[Estimate, float]]
"""(random, number of problems, a rate) → an interval, and what it should hold."""


class Case(NamedTuple):
    """An interval and what it is drawn from."""

    name: str
    draw: Draw


# --- Outputs --------------------------------------------------------------------------------------------------------------


def normals(random: np.random.Generator, n: int, r: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns how hard each of n problems is for one model and for another, standard normal with correlation r."""
    first, own = random.standard_normal((2, n))
    return first, r * first + math.sqrt(1 - r * r) * own


def outcomes(random: np.random.Generator, p: float, hard: np.ndarray, agreement: float, samples: int) -> list[list[bool]]:
    """Returns problem → sample → whether it is right; see the top of this file."""
    level = ndtr((ndtri(p) + math.sqrt(agreement) * hard) / math.sqrt(1 - agreement))
    drawn: list[list[bool]] = (random.random((len(hard), samples)) < level[:, None]).tolist()
    return drawn


def by_id(drawn: Sequence[Sequence[bool]]) -> OutcomesById:
    """Returns outcomes by an id of their problem."""
    return {str(index): samples for index, samples in enumerate(drawn)}


def two_models(random: np.random.Generator, n: int, p: float, q: float, a: float, r: float, samples: int) -> Pair:
    """Returns the outcomes of two models, of rates p and q, on the same problems."""
    first, second = normals(random, n, r)
    return by_id(outcomes(random, p, first, a, samples)), by_id(outcomes(random, q, second, a, samples))


def near(random: np.random.Generator, p: float) -> float:
    """Returns a rate not far from p."""
    return float(np.clip(p + random.normal(0, 0.05), 0.02, 0.98))


# --- Intervals ------------------------------------------------------------------------------------------------------------


def cases() -> Iterator[Case]:
    """Yields every interval that is shown, in the order of the table."""
    yield Case("rate, 1 sample", lambda random, n, p: (rate(_one(random, n, p, 0.5, 1)), p))
    for samples in (4, 8):
        for a in (0.0, 0.5, 0.9):
            yield Case(
                f"rate, {samples} samples, a {a:g}",
                lambda random, n, p, k=samples, a=a: (rate(_one(random, n, p, a, k)), p),
            )
    yield Case("pass@4 of 8 samples, a 0.5", _pass_at_4)
    yield Case("accuracy of finished, 4 samples, a 0.5", _finished)
    yield Case("macro average of 3 tasks, 1 sample", _macro)
    yield Case("independent difference, 1 sample", _apart)
    for samples in (1, 4, 8):
        for r in (0.0, 0.5, 0.9):
            a = 0.95 if samples == 1 else 0.6
            yield Case(
                f"paired difference, {samples} sample{'s' * (samples > 1)}, r {r:g}", _paired(samples, a, r, close=False)
            )
    for r in (0.5, 0.9):
        yield Case(f"paired difference, 1 sample, r {r:g}, rates near each other", _paired(1, 0.95, r, close=True))
    yield Case("paired difference of averages of 3 tasks, r 0.7", _paired_macro)
    yield Case("relative change in per cent, paired, r 0.7", _relative)
    yield Case("mean tokens, 1 sample, capped", _tokens)
    yield Case("mean per token (NLL)", _per_token)
    yield Case("KL per token", _kl)
    for name, spread in (("little", (0.05, 0.05)), ("as in the headline", (0.2, 0.1)), ("much", (0.4, 0.2))):
        yield Case(f"mean over 5 bases × 2 seeds, {name} spread", _replicated(*spread, predict=False))
        yield Case(f"one new run after 5 × 2, {name} spread", _replicated(*spread, predict=True))


def _one(random: np.random.Generator, n: int, p: float, a: float, samples: int) -> list[list[bool]]:
    return outcomes(random, p, random.standard_normal(n), a, samples)


def _pass_at_4(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    drawn = _one(random, n, p, 0.5, 8)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    level = ndtr((ndtri(p) + math.sqrt(0.5) * nodes) / math.sqrt(0.5))
    truth = 1 - float((1 - level) ** 4 @ weights / weights.sum())
    return mean_share([pass_at_k(own, 4) for own in drawn], 8 * n // 4), truth


def _finished(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    # Whether an output finishes depends on the problem, as whether it is right does; given the problem the two are independent.
    hard = random.standard_normal(n)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    right, done = (ndtr((ndtri(rate_) + math.sqrt(0.5) * nodes) / math.sqrt(0.5)) for rate_ in (p, 0.8))
    verdicts, finished = outcomes(random, p, hard, 0.5, 4), outcomes(random, 0.8, hard, 0.5, 4)
    kept = [[v for v, f in zip(own, ends, strict=True) if f] for own, ends in zip(verdicts, finished, strict=True)]
    return pooled_rate(kept), float((right * done) @ weights / (done @ weights))


def _macro(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    rates = [p, *random.uniform(0.05, 0.95, 2)]
    return macro([rate(_one(random, n, one, 0.5, 1)) for one in rates]), float(np.mean(rates))


def _apart(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    q = random.uniform(0.05, 0.95)
    return difference(rate(_one(random, n, p, 0.5, 1)), rate(_one(random, n, q, 0.5, 1))), q - p


def _paired(samples: int, a: float, r: float, *, close: bool) -> Draw:
    def draw(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
        q = near(random, p) if close else random.uniform(0.05, 0.95)
        return paired_difference(*two_models(random, n, p, q, a, r, samples)), q - p

    return draw


def _three(random: np.random.Generator, n: int, p: float) -> tuple[list[Pair], list[float], list[float]]:
    rates = [p, *random.uniform(0.05, 0.95, 2)]
    others = [near(random, one) for one in rates]
    return [two_models(random, n, p, q, 0.9, 0.7, 1) for p, q in zip(rates, others, strict=True)], rates, others


def _paired_macro(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    pairs, rates, others = _three(random, n, p)
    return macro_difference(pairs), float(np.mean(others) - np.mean(rates))


def _relative(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    q = random.uniform(0.05, 0.95)
    a, b = two_models(random, n, p, q, 0.9, 0.7, 1)
    sides = [rate(list(one.values())) for one in (a, b)]
    return relative_percent(*sides, paired_difference(a, b)), 100 * (q / p - 1)


_CAP, _SIGMA = 4096.0, 0.8


def _tokens(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    # Log-normal lengths, cut off at the budget; p places the median.
    centre = math.log(_CAP) - 2.5 + 2 * p
    lengths = np.minimum(np.exp(random.normal(centre, _SIGMA, n)), _CAP)
    end = (math.log(_CAP) - centre) / _SIGMA
    truth = math.exp(centre + _SIGMA**2 / 2) * ndtr(end - _SIGMA) + _CAP * (1 - ndtr(end))
    return ratio_of_sums(lengths, np.ones(n)), float(truth)


def _lengths(random: np.random.Generator, n: int) -> np.ndarray:
    return np.maximum(np.round(np.exp(random.normal(5, 0.6, n))), 5)


def _per_token(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    tokens = _lengths(random, n)
    return ratio_of_sums(tokens * random.gamma(8, p / 8, n), tokens), p


def _kl(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    # Differences of log-probabilities: around a level of the prompt's, with the noise that such a level brings.
    tokens, level = _lengths(random, n), random.gamma(2, p / 20, n)
    return ratio_of_sums(tokens * level + random.normal(0, 1, n) * np.sqrt(2 * tokens * level), tokens), p / 10


def _replicated(between: float, within: float, *, predict: bool) -> Draw:
    common, own = 0.3, 0.1  # of the variance of the problems: for all bases alike, and for each base its own

    def draw(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
        # Scaled so that the mean over bases and seeds, and over problems, is p.
        centre = ndtri(p) * math.sqrt(1 + between**2 + within**2)
        everyone = math.sqrt(common) * random.standard_normal(n)

        def base(seeds: int) -> list[list[bool]]:
            level = centre + random.normal(0, between) + everyone + math.sqrt(own) * random.standard_normal(n)
            drawn = [
                random.random(n) < ndtr((level + random.normal(0, within)) / math.sqrt(1 - common - own)) for _ in range(seeds)
            ]
            return [one.tolist() for one in drawn]

        runs = [base(2) for _ in range(5)]
        rates = [[rate([[one] for one in run]) for run in seeds] for seeds in runs]
        found = replicate(rates, shared=shared_variance([runs]))
        if not predict:
            return found.mean, p
        low, high = found.prediction or (0.0, 1.0)
        return Estimate(found.mean.value, low, high, n), float(np.mean(base(1)))

    return draw


def coverage(case: Case, n: int, rounds: int, rates: tuple[float, float] = (0.05, 0.95)) -> float:
    """Returns the share of a case's intervals that hold the truth, the rate uniform between two ends."""
    # Neither the order of the cases nor their choice moves a figure.
    random = np.random.default_rng([rounds, n, *case.name.encode()])
    hits = 0
    for index in range(rounds):
        p = rates[0] + (rates[1] - rates[0]) * (index + random.random()) / rounds
        found, truth = case.draw(random, n, p)
        low, high = (end if end is not None else beyond for end, beyond in ((found.low, -math.inf), (found.high, math.inf)))
        hits += low - 1e-12 <= truth <= high + 1e-12
    return hits / rounds


def exact_coverage(n: int, p: float) -> float:
    """Returns how often Wilson's interval of a rate from single samples holds p, without simulation."""
    low, high = _limits(n)
    return float(binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum())


@cache
def _limits(n: int) -> np.ndarray:
    """Returns (2, n + 1): the limits of every number of successes."""
    return np.array([wilson(count / n, n) for count in range(n + 1)]).T


# --- The table and the picture ----------------------------------------------------------------------------------------------


def table(chosen: Sequence[Case], sizes: Sequence[int], rounds: int) -> Iterator[str]:
    """Yields the lines of a Markdown table, as they are measured."""
    yield f"| interval | {' | '.join(f'{n:,} problems' for n in sizes)} |"
    yield f"| --- |{' ---: |' * len(sizes)}"
    for case in chosen:
        yield f"| {case.name} | {' | '.join(f'{100 * coverage(case, n, rounds):.1f}' for n in sizes)} |"


def picture(sizes: Sequence[int], rounds: int) -> str:
    """Returns the picture of coverage against the rate: of a rate, exactly; of a paired difference, by simulation."""
    axis = Axis("rate", 0.001, 0.5, (0.001, 0.01, 0.05, 0.1, 0.5), log=True)
    up = Axis("", 0.80, 1.0, (0.8, 0.85, 0.9, 0.95, 1.0), percent=True)
    points = np.geomspace(0.001, 0.5, 160)
    single = [_line(n, color, [Point(p, exact_coverage(n, p)) for p in points]) for color, n in enumerate(sizes)]
    paired = []
    for color, n in enumerate(sizes):
        found = [(p, coverage(Case(f"near {p:.5f}", _lost), n, rounds, (p, p))) for p in points[::16]]
        paired.append(_line(n, color, [Point(p, value) for p, value in found]))
    charts = [
        svg.chart("A rate, 1 sample a problem, exactly", single, axis, up, legend=False),
        svg.chart("Paired difference: a tenth of it lost", paired, axis, up, legend=False),
    ]
    return svg.picture("How often a 95 % interval holds the truth", charts, [_line(n, c, ()) for c, n in enumerate(sizes)], 2)


def _line(n: int, color: int, points: Sequence[Any]) -> Series:
    return Series(f"{n:,} problems", points, color, look="thin")


def _lost(random: np.random.Generator, n: int, p: float) -> tuple[Estimate, float]:
    return paired_difference(*two_models(random, n, p, 0.9 * p, 0.9, 0.7, 1)), -0.1 * p


def main() -> None:
    """Prints the table, and writes the picture where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000, help="intervals a figure (default: %(default)s)")
    parser.add_argument("--problems", type=int, nargs="+", default=SIZES, help="numbers of problems")
    parser.add_argument("--only", default="", help="only the lines that hold this text")
    parser.add_argument("--picture", type=Path, help="file for the picture")
    options = parser.parse_args()
    for line in table([case for case in cases() if options.only in case.name], options.problems, options.rounds):
        print(line, flush=True)
    error = 100 * math.sqrt(0.95 * 0.05 / options.rounds)
    print(f"\nPer cent of {options.rounds:,} intervals each; the standard error of a figure is {error:.1f}.")
    if options.picture is not None:
        options.picture.write_text(picture(options.problems, options.rounds), encoding="utf-8")


if __name__ == "__main__":
    main()
