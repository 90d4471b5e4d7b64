"""The budget curve: what reasoning accuracy would be under smaller token budgets, re-scored from the outputs on disk.

An output longer than a cap counts as cut off before its answer, so as wrong; one that fits counts as it did. Nothing is
generated. Much of a tax that is measured under a small budget may be the budget's: where tuning made outputs longer, the two
curves meet as the cap grows.

What it cannot tell: a model that is *made* to answer at the cap (budget forcing: thinking closed, an answer appended) is right
more often than the curve says, and so is one that ends its thinking earlier because it knows its budget. Nothing beyond the
budget that was generated is known: the last cap is the longest output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.evaluation.subjects import BASE, TUNED, outputs_file
from dgr_lightning.files import read_jsonl, write_json
from dgr_lightning.statistics.intervals import Estimate, macro, rate
from dgr_lightning.statistics.paired import macro_difference
from dgr_lightning.tasks.metrics import REASONING

_STEP = 2**0.5
_MOST_CAPS = 16

Scored = Mapping[str, Sequence[tuple[int, bool]]]
"""id of a problem → sample → tokens of the output, and whether it is right."""


@dataclass(frozen=True)
class Curve:
    """Accuracy over caps.

    Attributes:
        caps: in tokens, rising; each is √2 times the one before, and the last one is the longest output.
        accuracy: subject → an estimate a cap.
        difference: tuned minus base, paired on problems, an estimate a cap; empty for a single subject.
    """

    caps: Sequence[int]
    accuracy: Mapping[str, Sequence[Estimate]]
    difference: Sequence[Estimate]

    def to_json(self) -> dict[str, Any]:
        """Returns the curve as in budget.json."""
        accuracy = {subject: [one.to_json() for one in own] for subject, own in self.accuracy.items()}
        return {"caps": list(self.caps), **accuracy, "difference": [one.to_json() for one in self.difference]}


def budget_file(run_dir: Path) -> Path:
    """Returns the file of a run's budget curves."""
    return run_dir / "evaluation" / "budget.json"


def write_budget(run_dir: Path, subjects: Sequence[str], tasks: Sequence[str]) -> None:
    """Writes the curves of a run, by `headline` and task; an empty object where no reasoning task was measured."""
    curves = budget_curves(run_dir, subjects, tasks)
    write_json(budget_file(run_dir), {name: curve.to_json() for name, curve in curves.items()})


def budget_curves(run_dir: Path, subjects: Sequence[str], tasks: Sequence[str]) -> dict[str, Curve]:
    """Returns the curves of a run: `headline`, averaged over the tasks, and each task's.

    Args:
        run_dir: holds the outputs, as `evaluate_model` wrote them.
        subjects: the base, or base and tuned.
        tasks: those of reasoning; without any there is no curve.
    """
    if not tasks:
        return {}
    scored = {subject: {task: _read(outputs_file(run_dir, subject, task)) for task in tasks} for subject in subjects}
    caps = _caps([sample for by_task in scored.values() for own in by_task.values() for one in own.values() for sample in one])
    curves = {"headline": _curve(scored, caps)}
    return curves | {
        task: _curve({subject: {task: by_task[task]} for subject, by_task in scored.items()}, caps) for task in tasks
    }


def _caps(samples: Sequence[tuple[int, bool]]) -> list[int]:
    """Returns the grid, from the longest output down to where no right one fits any more."""
    longest = max(max(tokens for tokens, _ in samples), 1)
    shortest = min((tokens for tokens, right in samples if right), default=longest)
    grid = [round(longest / _STEP**power) for power in range(_MOST_CAPS)]
    fitting = [cap for cap in grid if cap >= shortest]
    return sorted({*fitting, *grid[len(fitting) : len(fitting) + 1]} - {0})


def _curve(scored: Mapping[str, Mapping[str, Scored]], caps: Sequence[int]) -> Curve:
    accuracy: dict[str, list[Estimate]] = {subject: [] for subject in scored}
    changes = []
    for cap in caps:
        capped = {subject: [_capped(own, cap) for own in by_task.values()] for subject, by_task in scored.items()}
        for subject, tasks in capped.items():
            accuracy[subject].append(macro([rate(list(own.values())) for own in tasks]))
        if BASE in capped and TUNED in capped:
            changes.append(macro_difference(list(zip(capped[BASE], capped[TUNED], strict=True))))
    return Curve(caps, accuracy, changes)


def _capped(scored: Scored, cap: int) -> dict[str, list[bool]]:
    return {id_: [right and tokens <= cap for tokens, right in samples] for id_, samples in scored.items()}


def _read(path: Path) -> Scored:
    by_problem: dict[str, list[tuple[int, bool]]] = {}
    for row in read_jsonl(path):
        by_problem.setdefault(row["id"], []).append((row["num_tokens"], bool(row[REASONING.verdict])))
    return by_problem
