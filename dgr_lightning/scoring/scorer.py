"""Scores of the outputs of a task: right or wrong by the task's grader, or what the judges say.

Evaluation and the probes during training both score with this, so that a curve and a result mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from dgr_lightning.models.thinking import Parsed
from dgr_lightning.scoring.grader import GRADERS, Grade, Grader
from dgr_lightning.scoring.judge import Exchange, Judge, Verdict, ignore
from dgr_lightning.tasks.task import Problem, Task

ANSWER, TRACE, WHOLE = "answer", "trace", "whole"
"""What of an output is judged: the text after thinking, the thinking, or the one after the other as a single text."""


@dataclass(frozen=True)
class Score:
    """What an output counts as.

    Attributes:
        verdict: whether it is right, or, of a task without a grader, whether its answer refuses; None: no judge could say.
        grade: the grader's; None for a task without one.
        judged: judge → part (`answer`, `trace`, `whole`) → its verdict; without the parts that the output does not have.
    """

    verdict: bool | None
    grade: Grade | None = None
    judged: Mapping[str, Mapping[str, Verdict]] = field(default_factory=dict)


class Scorer:
    """Scores outputs to tasks, whatever their kind. Use it as a context manager: leaving it closes graders and judge."""

    def __init__(self, judge: Judge) -> None:
        """Keeps the judge; a grader is opened with the first task that names it.

        Args:
            judge: of tasks without a grader.
        """
        self._judge = judge
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
            advance: called with numbers of outputs as they are done, for a progress bar.
        """
        if task.grader is not None:
            golds = [problem.gold for problem in problems]
            assert None not in golds, f"{task.name}: a problem that is graded has a gold answer"
            pairs = [(output.answer, gold or "") for output, gold in zip(outputs, golds, strict=True)]
            grades = self._grader(task.grader).grades(pairs, advance)
            return [Score(grade.correct, grade) for grade in grades]
        found = {
            i: Exchange(problem.prompt, output.answer)
            for i, (problem, output) in enumerate(zip(problems, outputs, strict=True))
            if output.answer is not None
        }
        verdicts = dict(zip(found, self._judge.verdicts(list(found.values())), strict=True))
        advance(len(outputs))
        return [
            Score(verdicts[i].refused, judged={self._judge.name: {ANSWER: verdicts[i]}}) if i in verdicts else Score(False)
            for i in range(len(outputs))
        ]

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
        """Closes graders and judge."""
        self._stack.close()
        self._judge.close()
