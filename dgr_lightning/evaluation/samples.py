"""The outputs of a run's models, read back from its directory: for comparisons, viewers and exports.

A run of evaluate.py has one subject, `base`; a training has two, `base` and `tuned`. Outputs may fill a disk, so a task is read
when it is asked for, and line by line where a reader can do with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dgr_lightning.evaluation.subjects import SUBJECTS, outputs_file, outputs_folder
from dgr_lightning.files import read_jsonl

Sample = Mapping[str, Any]
"""A line of `<task>.jsonl`, as `evaluation.records.record` makes it."""


class Samples(Mapping[str, list[Sample]]):
    """Task → the samples of one model, in the order of its file, which is read anew with every look-up."""

    def __init__(self, run_dir: Path, subject: str, tasks: Iterable[str]) -> None:
        """Takes what `read_samples` found."""
        self._run_dir, self._subject, self._tasks = run_dir, subject, list(tasks)

    def __getitem__(self, task: str) -> list[Sample]:
        """Returns all samples of a task.

        Raises:
            KeyError: the model was not measured on it.
            UserError: a line is not JSON.
        """
        return list(self.stream(task))

    def stream(self, task: str) -> Iterator[Sample]:
        """Yields the samples of a task one by one; raises as a look-up does."""
        if task not in self._tasks:
            raise KeyError(task)
        yield from read_jsonl(outputs_file(self._run_dir, self._subject, task))

    def __iter__(self) -> Iterator[str]:
        """Yields the tasks."""
        return iter(self._tasks)

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self._tasks)


def subjects_of(run_dir: Path) -> list[str]:
    """Returns the models of a run whose outputs are on disk: `base`, `tuned`, both, or none."""
    return [subject for subject in SUBJECTS if any(outputs_folder(run_dir, subject).glob("*.jsonl"))]


def read_samples(run_dir: Path, subject: str, tasks: Iterable[str] | None = None) -> Samples:
    """Returns the samples of one model of a run, task by task; nothing is read before a task is looked up.

    Args:
        run_dir: the run directory.
        subject: one of `subjects_of(run_dir)`.
        tasks: those that count, such as the ones in its summary.json, in their order; None: every file that is there. A folder
            may hold the outputs of a task that an earlier command measured. Tasks without a file are left out.
    """
    found = {file.stem: file for file in sorted(outputs_folder(run_dir, subject).glob("*.jsonl"))}
    return Samples(run_dir, subject, found if tasks is None else [task for task in tasks if task in found])
