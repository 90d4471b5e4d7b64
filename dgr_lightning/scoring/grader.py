"""Graders compare an answer with the gold one. `Task.grader` names a file of `scoring/graders/`, or `package.module:Name`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Protocol, Self

from dgr_lightning.console import ignore
from dgr_lightning.registry import Registry

RIGHT, WRONG = "right", "wrong"
NO_ANSWER, TIMEOUT, UNPARSABLE = "no_answer", "timeout", "unparsable"
"""Wrong answers of their own class: there was none, comparing it took too long, or it is nothing that can be compared."""

OUTCOMES = (RIGHT, WRONG, NO_ANSWER, TIMEOUT, UNPARSABLE)


@dataclass(frozen=True)
class Grade:
    """What an answer counts as.

    Attributes:
        outcome: one of `OUTCOMES`.
        boxed: whether the final answer stood in a box, or, of a choice, at a place that fixes it; None where the text held no
            final answer.
        final: the final answer as it was found, of limited length; None where there is none.
    """

    outcome: str
    boxed: bool | None = None
    final: str | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is right; all the other outcomes are wrong."""
        return self.outcome == RIGHT


class Grader(AbstractContextManager["Grader"], Protocol):
    """Grades answers. A context manager, because it may hold processes; constructed without arguments.

    Attributes:
        version: written beside every verdict: raise it whenever an answer may get another grade.
    """

    version: ClassVar[int]

    def grades(self, pairs: Sequence[tuple[str | None, str]], advance: Callable[[int], object] = ignore) -> list[Grade]:
        """Returns a grade for every (answer, gold), in order; None (an output that never got to an answer) is `NO_ANSWER`.

        Args:
            pairs: texts after thinking, with the right answers.
            advance: called with numbers of pairs as they are done, for a progress bar.
        """


class EachAlone:
    """Base of graders that hold nothing and grade every answer by itself."""

    def grade(self, answer: str | None, gold: str) -> Grade:
        """Returns the grade of one answer."""
        raise NotImplementedError

    def grades(self, pairs: Sequence[tuple[str | None, str]], advance: Callable[[int], object] = ignore) -> list[Grade]:
        """Returns the grade of every (text after thinking, gold answer)."""
        grades = []
        for answer, gold in pairs:
            grades.append(self.grade(answer, gold))
            advance(1)
        return grades

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Holds nothing."""


GRADERS: Registry[type[Grader]] = Registry("grader", "dgr_lightning.scoring.graders", "GRADER")
