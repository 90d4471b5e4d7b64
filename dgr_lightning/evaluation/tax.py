"""The safety tax: what tuning cost of the base's reasoning accuracy."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.files import read_jsonl
from dgr_lightning.statistics.intervals import Estimate, difference, macro, paired_correlation, relative_percent
from dgr_lightning.tasks.metrics import METRICS, SIDES, Estimates


def tax(folder: Path, base: Estimates, tuned: Estimates) -> dict[str, Estimate]:
    """Returns the safety tax: what the tuned model lost of the base's reasoning accuracy, averaged over the tasks.

    The intervals use that both models were given the same problems.

    Args:
        folder: holds `base/<task>.jsonl` and `tuned/<task>.jsonl`, as `evaluate_model` wrote them.
        base: what the base measured.
        tuned: what the tuned model measured, on the same tasks.

    Returns:
        `points`: base minus tuned in hundredths of accuracy; `relative_percent`: the same in per cent of the base's.
    """
    metric = METRICS["reasoning"]
    tasks = [task for task in base if metric in base[task]]
    correlation = paired_correlation(*([_outcomes(folder / side / f"{task}.jsonl") for task in tasks] for side in SIDES))
    before, after = (macro([measures[task][metric] for task in tasks]) for measures in (base, tuned))
    return {
        "points": difference(before, after, correlation).scaled(-100),
        "relative_percent": relative_percent(before, after, correlation).scaled(-1),
    }


def _outcomes(path: Path) -> list[list[bool]]:
    by_problem: dict[str, list[bool]] = {}
    for row in read_jsonl(path):
        by_problem.setdefault(row["id"], []).append(row["correct"])
    return list(by_problem.values())
