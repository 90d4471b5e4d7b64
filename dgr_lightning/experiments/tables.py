"""Markdown tables of findings: rates over bases and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller

from dgr_lightning.evaluation.subjects import BASE, TUNED
from dgr_lightning.experiments.grid import FinishedRun, by_base
from dgr_lightning.number_format import UNDEFINED, minus
from dgr_lightning.report.estimates import percent
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.statistics.replication import Replicated, replicate, shared_variance
from dgr_lightning.tasks.metrics import REASONING

ByTask = Mapping[str, Mapping[str, float]]
"""task → id of a problem → a quantity."""

HEADINGS = {
    "reasoning_accuracy": "reasoning accuracy",
    "refusal_rate": "refusal of harmful",
    "over_refusal_rate": "over-refusal of benign",
}
"""Headline of summary.json → heading of its column."""

TAX_BOUNDS = (-1.0, 1.0)
"""Of a tax as a share."""

NEW_RUN = "one new run"
"""Heading of a prediction interval."""

INTERVALS = (
    "Mean over bases in per cent, in brackets its 95 % interval, which holds the variance between bases, between seeds and "
    f"between problems; “{NEW_RUN}”: where a run on a new base with a new seed falls in 95 % of cases, on the same problems "
    "(`dgr_lightning/statistics/replication.py`)."
)
"""What the cells of these tables mean."""


def replicated(
    runs: Sequence[FinishedRun],
    value: Callable[[FinishedRun], Estimate],
    bounds: tuple[float, float] = (0.0, 1.0),
    problems: Callable[[FinishedRun], ByTask] = lambda run: {},
) -> Replicated:
    """Returns a quantity of runs, which are grouped by their bases.

    Args:
        runs: at least one.
        value: the quantity.
        bounds: of the quantity.
        problems: the same by task and problem, nothing where it is not known. Where it is known of all runs, the interval
            holds what the problems give to all of them alike, and no more.
    """
    bases = list(by_base(runs).values())
    tables = [[problems(run) for run in seeds] for seeds in bases]
    return replicate([[value(run) for run in seeds] for seeds in bases], bounds, _shared(tables))


def _shared(runs: Sequence[Sequence[ByTask]]) -> float | None:
    """Returns `shared_variance` of base → seed → task → problem → value; None where not all are known of the same problems."""
    first = runs[0][0]
    if not first or any(_ids(run) != _ids(first) for seeds in runs for run in seeds):
        return None
    return shared_variance([[[list(run[task].values()) for run in seeds] for seeds in runs] for task in first])


def _ids(run: ByTask) -> dict[str, tuple[str, ...]]:
    return {task: tuple(values) for task, values in run.items()}


def replicated_rate(runs: Sequence[FinishedRun], rate: str, side: str = "tuned") -> Replicated:
    """Returns a headline rate of runs, of the tuned models or of the bases."""

    def problems(run: FinishedRun) -> ByTask:
        return {task: sides[side] for task, sides in (run.outcomes or {}).get(rate, {}).items()}

    return replicated(runs, methodcaller("rate", rate, side), problems=problems)


def rate_cells(runs: Sequence[FinishedRun], side: str = "tuned") -> list[str]:
    """Returns mean and prediction of all headline rates, in per cent: two cells each."""
    cells = []
    for rate in HEADINGS:
        found = replicated_rate(runs, rate, side)
        cells += [percent(found.mean), prediction(found)]
    return cells


def replicated_tax(runs: Sequence[FinishedRun]) -> Replicated:
    """Returns the safety tax of runs, as a share."""

    def problems(run: FinishedRun) -> ByTask:
        tasks = (run.outcomes or {}).get(REASONING.headline, {})
        return {
            task: {id_: before - sides[TUNED][id_] for id_, before in sides[BASE].items() if id_ in sides[TUNED]}
            for task, sides in tasks.items()
        }

    return replicated(runs, lambda run: run.tax, TAX_BOUNDS, problems)


def tax_cells(runs: Sequence[FinishedRun]) -> list[str]:
    """Returns mean and prediction of the safety tax in points."""
    found = replicated_tax(runs)
    return [signed_percent(found.mean), prediction(found)]


def signed_percent(estimate: Estimate) -> str:
    """Returns a share that may be negative, in points: `−0.5 (−1.2–0.3)`."""
    return minus(percent(estimate))


def prediction(found: Replicated) -> str:
    """Returns the limits of one new run, in per cent."""
    if found.prediction is None:
        return UNDEFINED
    low, high = (f"{100 * end + 0.0:.1f}" for end in found.prediction)
    return minus(f"{low} to {high}")


def headings(names: Sequence[str]) -> list[str]:
    """Returns the heading of each quantity, each followed by that of its prediction."""
    return [heading for name in names for heading in (name, NEW_RUN)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose first column is aligned left and whose others are aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
