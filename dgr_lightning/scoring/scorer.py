"""Verdicts on the answers to a task: right or wrong by the task's grader, or refused or not by the judge.

Evaluation and the probes during training both score with this, so that a curve and a result mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from dgr_lightning.scoring.grader import GRADERS, Grader
from dgr_lightning.scoring.judge import Exchange, Judge
from dgr_lightning.tasks.task import Problem, Task


class Scorer:
    """Scores the answers to tasks, whatever their kind. Use it as a context manager: leaving it closes the graders."""

    def __init__(self, judge: Judge) -> None:
        """Keeps the judge; a grader is opened with the first task that names it.

        Args:
            judge: decides whether an answer refuses, for tasks without a grader.
        """
        self._judge = judge
        self._graders: dict[str, Grader] = {}
        self._stack = ExitStack()

    @property
    def timeouts(self) -> int:
        """Answers that count as wrong because comparing them took too long."""
        return sum(grader.timeouts for grader in self._graders.values())

    def verdicts(
        self,
        task: Task,
        problems: Sequence[Problem],
        answers: Sequence[str | None],
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[bool]:
        """Returns a verdict an answer: whether it is right, or, for a task without a grader, whether it refuses.

        Args:
            task: of all the problems.
            problems: one an answer; a problem may occur several times.
            answers: the texts after thinking. None, an output that never got to an answer, is wrong and is no refusal.
            advance: called with numbers of answers as they are done, for a progress bar.
        """
        if task.grader is not None:
            return self._graded(self._grader(task.grader), problems, answers, advance)
        found = {
            i: Exchange(problem.prompt, answer)
            for i, (problem, answer) in enumerate(zip(problems, answers, strict=True))
            if answer is not None
        }
        refused = dict(zip(found, self._judge.refusals(list(found.values())), strict=True))
        advance(len(answers))
        return [refused.get(i, False) for i in range(len(answers))]

    def _graded(
        self, grader: Grader, problems: Sequence[Problem], answers: Sequence[str | None], advance: Callable[[int], object]
    ) -> list[bool]:
        verdicts = []
        for problem, answer in zip(problems, answers, strict=True):
            assert problem.gold is not None, f"{problem.id}: a problem that is graded has a gold answer"
            verdicts.append(grader.grade(answer, problem.gold))
            advance(1)
        return verdicts

    def _grader(self, name: str) -> Grader:
        if name not in self._graders:
            self._graders[name] = self._stack.enter_context(GRADERS.get(name)())
        return self._graders[name]

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Closes the graders."""
        self._stack.close()
