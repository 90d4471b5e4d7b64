"""Scores of the outputs of a task: right or wrong by the task's grader, or what the judges say.

Evaluation and the probes during training both score with this, so that a curve and a result mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from dgr_lightning.console import ignore
from dgr_lightning.models.thinking import Parsed
from dgr_lightning.scoring.grader import GRADERS, Grade, Grader
from dgr_lightning.scoring.panel import Judged, Panel
from dgr_lightning.tasks.task import Problem, Task


@dataclass(frozen=True)
class Score:
    """What an output counts as.

    Attributes:
        verdict: whether it is right, or, of a task without a grader, whether its answer refuses; None: no judge could say.
        grade: the grader's; None for a task without one.
        judged: of a task without a grader, what every judge says of every part that it was to judge.
    """

    verdict: bool | None
    grade: Grade | None = None
    judged: Judged = field(default_factory=dict)


class Scorer:
    """Scores outputs to tasks, whatever their kind. Use it as a context manager: leaving it closes graders and judges."""

    def __init__(self, panel: Panel) -> None:
        """Keeps the judges; a grader is opened with the first task that names it.

        Args:
            panel: the judges of tasks without a grader.
        """
        self._panel = panel
        self._graders: dict[str, Grader] = {}
        self._stack = ExitStack()

    def scores(
        self,
        task: Task,
        problems: Sequence[Problem],
        outputs: Sequence[Parsed],
        advance: Callable[[int], object] = ignore,
    ) -> list[Score]:
        """Returns a score an output.

        Args:
            task: of all the problems.
            problems: one an output; a problem may occur several times.
            outputs: traces and answers. An output without an answer is wrong and is no refusal.
            advance: called with numbers of steps as they are done, for a progress bar: `num_steps` an output.
        """
        if task.grader is not None:
            golds = [problem.gold for problem in problems]
            assert None not in golds, f"{task.name}: a problem that is graded has a gold answer"
            pairs = [(output.answer, gold or "") for output, gold in zip(outputs, golds, strict=True)]
            grades = self._grader(task.grader).grades(pairs, advance)
            return [Score(grade.correct, grade) for grade in grades]
        found = self._panel.judge([problem.prompt for problem in problems], outputs, advance)
        return [
            Score(self._panel.refused(output, judged), judged=judged) for output, judged in zip(outputs, found, strict=True)
        ]

    def num_steps(self, task: Task) -> int:
        """Returns the steps of scoring an output of a task: one, or as many as texts of it are judged."""
        return 1 if task.grader is not None else self._panel.num_texts

    def grader_version(self, task: Task) -> int | None:
        """Returns the version of a task's grader; None for a task without one."""
        return None if task.grader is None else self._grader(task.grader).version

    def _grader(self, name: str) -> Grader:
        if name not in self._graders:
            self._graders[name] = self._stack.enter_context(GRADERS.get(name)())
        return self._graders[name]

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Closes graders and judges."""
        self._stack.close()
        self._panel.close()
