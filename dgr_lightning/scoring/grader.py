"""Graders compare an answer with the gold one. `Task.grader` names a file of `scoring/graders/`, or `package.module:Name`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

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


def ignore(_: int) -> None:
    """Takes the place of a progress bar."""


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


GRADERS: Registry[type[Grader]] = Registry("grader", "dgr_lightning.scoring.graders", "GRADER")
