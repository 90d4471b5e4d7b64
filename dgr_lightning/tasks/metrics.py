"""The kinds of tasks, what each measures and under which names; the averages that head a result."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dgr_lightning.statistics.intervals import Estimate, macro


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Attributes:
        name: as in `Task.kind`.
        metric: the rate that a task of this kind measures.
        headline: the macro average of that rate over the tasks of the kind.
        verdict: field of an output's line that says whether it counts.
    """

    name: str
    metric: str
    headline: str
    verdict: str


REASONING = Kind("reasoning", "accuracy", "reasoning_accuracy", "correct")
KINDS = {
    kind.name: kind
    for kind in (
        REASONING,
        Kind("harmful", "refusal_rate", "refusal_rate", "refused"),
        Kind("benign", "over_refusal_rate", "over_refusal_rate", "refused"),
    )
}

HEALTH = ("cap_hit_rate", "missing_thinking_rate", "early_stop_rate")
"""Rates that every task has beside its metric; `evaluation.evaluate` says what each of them counts."""

Estimates = dict[str, dict[str, Estimate]]
"""task → metric → estimate."""


def headline(estimates: Estimates, skipped: Collection[str] = ()) -> dict[str, Estimate]:
    """Returns the macro average over the tasks of each kind; its value is None for a kind without tasks.

    Args:
        estimates: of the tasks.
        skipped: kinds of which a task was not measured: an average over fewer tasks is another number, so they have none.
    """

    def rates(kind: Kind) -> list[Estimate]:
        return [] if kind.name in skipped else [rates[kind.metric] for rates in estimates.values() if kind.metric in rates]

    return {kind.headline: macro(rates(kind)) for kind in KINDS.values()}
