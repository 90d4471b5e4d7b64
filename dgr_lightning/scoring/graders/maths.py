"""Grades maths: compares the final answer of a text with the gold answer.

Three steps, each cheaper and more certain than the next: the same normal form, the same number, and math-verify's symbolic
comparison. Only the last one computes with model text. It runs in a process that is killed when its time is up; a pair that
could not be compared in time counts as wrong, and as a timeout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ClassVar, Self

from dgr_lightning.errors import UserError
from dgr_lightning.limited_process import CannotStart, LimitedProcess, NoAnswer
from dgr_lightning.scoring.final_answer import final_answer, is_words, normalise, numeral, parse_number
from dgr_lightning.scoring.grader import NO_ANSWER, RIGHT, TIMEOUT, WRONG, Grade, ignore

MAX_CHARACTERS = 400
"""A longer final answer is wrong, unseen by math-verify; the longest gold of MATH-500 has 53 characters."""


class MathsGrader:
    """Grades the answers to maths problems; a context manager, because it may hold a process.

    The process starts when a pair first needs it, lives as long as the grader, and is replaced after it was killed. Verdicts on
    pairs are remembered, so that an answer that many samples give is compared once. Not thread-safe.

    """

    version: ClassVar[int] = 1

    def __init__(self, seconds: float = 5.0) -> None:
        """Starts nothing yet.

        Args:
            seconds: wall-clock limit of one comparison.
        """
        self._seconds = seconds
        self._known: dict[tuple[str, str], bool | None] = {}
        self._worker = LimitedProcess("dgr_lightning.scoring.maths_worker")

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Ends the process."""
        self.close()

    def close(self) -> None:
        """Ends the process, if one is running; a further grading may start another."""
        self._worker.close()

    def grades(self, pairs: Sequence[tuple[str | None, str]], advance: Callable[[int], object] = ignore) -> list[Grade]:
        """Returns the grade of every (text after thinking, gold answer): LaTeX or a number, without a box.

        Raises:
            UserError: math-verify is not installed.
        """
        grades = []
        for answer, gold in pairs:
            grades.append(self.grade(answer, gold))
            advance(1)
        return grades

    def grade(self, answer: str | None, gold: str) -> Grade:
        """Returns the grade of one answer, as `grades` does."""
        final = None if answer is None else final_answer(answer)
        if answer is None or final is None:
            return Grade(NO_ANSWER)
        boxed, shown = "\\boxed" in answer or "\\fbox" in answer, final[:MAX_CHARACTERS]
        equal = len(final) <= MAX_CHARACTERS and self._equal(final, gold)
        return Grade(TIMEOUT if equal is None else RIGHT if equal else WRONG, boxed, shown)

    def _equal(self, final: str, gold: str) -> bool | None:
        """Returns whether a final answer is the gold one; None: that could not be computed in time."""
        left, right = normalise(final), normalise(gold)
        if not left:
            return False
        if left.replace(" ", "") == right.replace(" ", ""):
            return True
        if is_words(right):
            return left.casefold() == right.casefold()
        (digits, base), (gold_digits, gold_base) = numeral(left), numeral(right)
        if base or gold_base:
            # The base that the question asks for may be left out, but not changed; math-verify would not look at it.
            return digits == gold_digits and (base == gold_base or not base or not gold_base)
        value, target = parse_number(left), parse_number(right)
        if value is not None and target is not None:
            return value == target or ("%" in final and value == 100 * target)
        if (pair := (left, right)) not in self._known:
            self._known[pair] = self._compared(left, right)
        return self._known[pair]

    def _compared(self, answer: str, gold: str) -> bool | None:
        """Returns whether a pair is equal; None: no reply in time, or the process died over it."""
        try:
            return bool(self._worker.ask({"answer": answer, "gold": gold}, self._seconds)["equal"])
        except CannotStart as error:
            raise UserError(
                f"Grading: math-verify cannot be started by {sys.executable}. Install what the project needs: "
                "pip install -r requirements.txt."
            ) from error
        except NoAnswer:
            return None


GRADER = MathsGrader
