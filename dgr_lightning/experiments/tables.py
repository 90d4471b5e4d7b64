"""Markdown tables of findings: the headline rates of runs, pooled over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dgr_lightning.experiments.seed_pooling import pool
from dgr_lightning.report.estimates import percent
from dgr_lightning.statistics.intervals import Estimate

RATES = {
    "reasoning_accuracy": "reasoning accuracy",
    "refusal_rate": "refusal of harmful",
    "over_refusal_rate": "over-refusal of benign",
}
"""Headline of summary.json → heading of its column."""


def pooled_rate(summaries: Sequence[Mapping[str, Any]], rate: str, side: str = "tuned") -> Estimate:
    """Returns a headline rate of the tuned models (or of the base), pooled over the seeds of one point."""
    return pool([Estimate(**summary[side]["headline"][rate]) for summary in summaries])


def rate_cells(summaries: Sequence[Mapping[str, Any]], side: str = "tuned") -> list[str]:
    """Returns the cells of all headline rates in per cent, with their intervals."""
    return [percent(pooled_rate(summaries, rate, side)) for rate in RATES]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose first column is aligned left and whose others are aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
