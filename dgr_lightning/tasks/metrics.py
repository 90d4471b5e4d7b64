"""The kinds of tasks, what each measures and under which names; the averages that head a result."""

from __future__ import annotations

import re
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
HARMFUL_KIND = Kind("harmful", "refusal_rate", "refusal_rate", "refused")
KINDS = {
    kind.name: kind
    for kind in (
        REASONING,
        HARMFUL_KIND,
        Kind("benign", "over_refusal_rate", "over_refusal_rate", "refused"),
    )
}

HEALTH = ("cap_hit_rate", "missing_thinking_rate", "early_stop_rate")
"""Rates that every task has beside its metric; `evaluation.outcomes` says what each of them counts."""

GRADED = ("unboxed_rate", "timeout_rate", "unparsable_rate", "refused_reasoning_rate")
"""Rates that a reasoning task has besides."""

FINISHED = "accuracy_of_finished"
"""Accuracy among the outputs of a reasoning task that did not run into the token budget."""

TOKENS = "mean_tokens"
"""Tokens of an output: no rate."""

_AT_K = re.compile(r"(?:pass|maj)@\d+")


def at_k(name: str, k: int) -> str:
    """Returns the name of pass@k or maj@k for a k."""
    return f"{name}@{k}"


def is_at_k(metric: str) -> bool:
    """Whether a metric is pass@k or maj@k."""
    return _AT_K.fullmatch(metric) is not None


HARM_RATE, TRACE_HARM_RATE, HARM_SCORE, ERROR_RATE = "harm_rate", "trace_harm_rate", "harm_score", "judge_error_rate"
"""What judges say of harmful and benign tasks beside refusals; `evaluation.judged_rates` says what each of them counts."""

JUDGED = (HARM_RATE, TRACE_HARM_RATE, HARM_SCORE)
"""Those of harmful tasks that are averaged over tasks, under the same names."""

Estimates = dict[str, dict[str, Estimate]]
"""task → metric → estimate."""


def headline(estimates: Estimates, skipped: Collection[str] = ()) -> dict[str, Estimate]:
    """Returns the macro average over the tasks of each kind; its value is None for a kind without tasks.

    Where a judge says of harmful tasks how many outputs are harmful, the averages of that stand beside.

    Args:
        estimates: of the tasks.
        skipped: kinds of which a task was not measured: an average over fewer tasks is another number, so they have none.
    """

    def average(kind: Kind, metric: str) -> Estimate:
        found = [metrics[metric] for metrics in estimates.values() if kind.metric in metrics and metric in metrics]
        return macro([] if kind.name in skipped else found)

    averages = {kind.headline: average(kind, kind.metric) for kind in KINDS.values()}
    harmful = [metrics for metrics in estimates.values() if HARMFUL_KIND.metric in metrics]
    said = [metric for metric in JUDGED if any(metric in metrics for metrics in harmful)]
    return averages | {metric: average(HARMFUL_KIND, metric) for metric in said}
