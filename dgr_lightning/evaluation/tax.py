"""The safety tax: the reasoning accuracy that tuning cost."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.evaluation.subjects import SUBJECTS, outputs_file
from dgr_lightning.files import read_jsonl
from dgr_lightning.statistics.intervals import Estimate, macro, relative_percent
from dgr_lightning.statistics.paired import OutcomesById, macro_difference
from dgr_lightning.tasks.metrics import REASONING, Estimates


def tax(run_dir: Path, base: Estimates, tuned: Estimates) -> dict[str, Estimate]:
    """Returns the safety tax: the reasoning accuracy that the tuned model lost against the base, averaged over the tasks.

    The intervals use that both models were given the same problems.

    Args:
        run_dir: holds the outputs of both models, as `evaluate_model` wrote them.
        base: estimates of the base.
        tuned: estimates of the tuned model, on the same tasks.

    Returns:
        `points`: base minus tuned in hundredths of accuracy; `relative_percent`: the same in per cent of the base's.
    """
    tasks = [task for task in base if REASONING.metric in base[task]]
    before, after = (macro([estimates[task][REASONING.metric] for task in tasks]) for estimates in (base, tuned))
    first, second = ([_outcomes(outputs_file(run_dir, subject, task)) for task in tasks] for subject in SUBJECTS)
    change = macro_difference(list(zip(first, second, strict=True)))
    return {"points": change.scaled(-100), "relative_percent": relative_percent(before, after, change).scaled(-1)}


def _outcomes(path: Path) -> OutcomesById:
    by_problem: dict[str, list[bool]] = {}
    for row in read_jsonl(path):
        by_problem.setdefault(row["id"], []).append(row[REASONING.verdict])
    return by_problem
