"""Graders compare an answer with the gold one. `Task.grader` names a file of `scoring/graders/`, or `package.module:Name`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from dgr_lightning.registry import Registry


class Grader(AbstractContextManager["Grader"], Protocol):
    """Grades answers. A context manager, because it may hold a process; constructed without arguments.

    Attributes:
        timeouts: answers that count as wrong because comparing them took too long.
    """

    timeouts: int

    def grade(self, answer: str | None, gold: str) -> bool:
        """Returns whether an answer is right; None (an output that never got to an answer) is wrong."""


GRADERS: Registry[type[Grader]] = Registry("grader", "dgr_lightning.scoring.graders", "GRADER")
