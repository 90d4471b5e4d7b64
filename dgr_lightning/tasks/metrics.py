"""The names of what is measured, and the averages that head a result."""

from __future__ import annotations

from dgr_lightning.statistics.intervals import Estimate, macro

# What a kind of task measures, the key of its macro average in a headline, and the field of an output that holds its verdict.
METRICS = {"reasoning": "accuracy", "harmful": "refusal_rate", "benign": "over_refusal_rate"}
HEADLINES = {"reasoning": "reasoning_accuracy", "harmful": "refusal_rate", "benign": "over_refusal_rate"}
VERDICTS = {"reasoning": "correct", "harmful": "refused", "benign": "refused"}
# What is measured beside it, of every task; `evaluation` says what each of them counts.
HEALTH = ("cap_hit_rate", "missing_thinking_rate", "early_stop_rate")
# The models of a run: before training and after.
SIDES = ("base", "tuned")

Estimates = dict[str, dict[str, Estimate]]
"""task → metric → measure."""


def headline(measures: Estimates) -> dict[str, Estimate]:
    """Returns the macro averages over the tasks of each kind; undefined (its value is None) for a kind that no task has."""
    return {
        name: macro([metrics[METRICS[kind]] for metrics in measures.values() if METRICS[kind] in metrics])
        for kind, name in HEADLINES.items()
    }
