"""The safety tax: the reasoning accuracy that tuning cost."""

from __future__ import annotations

from collections.abc import Mapping

from dgr_lightning.evaluation.differences import Outcomes, paired_tasks
from dgr_lightning.statistics.intervals import Estimate, macro, relative_percent
from dgr_lightning.statistics.paired import macro_difference
from dgr_lightning.tasks.metrics import REASONING, Estimates


def tax(base: Estimates, tuned: Estimates, outcomes: Mapping[str, Outcomes]) -> dict[str, Estimate]:
    """X."""
