"""Grades maths: compares the final answer of a text with the gold answer.

Each step is cheaper and more certain than the next: the same normal form, the same words, the same number; then, in a
process of its own, the same parts with the same values (`equivalence`), and math-verify's symbolic comparison for what is
left. A pair that could not be compared in time counts as wrong, and as a timeout.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ClassVar, Literal, Self

from dgr_lightning.console import ignore
from dgr_lightning.errors import UserError
from dgr_lightning.limited_process import CannotStart, LimitedProcess, NoAnswer
from dgr_lightning.scoring.grader import NO_ANSWER, RIGHT, TIMEOUT, UNPARSABLE, WRONG, Grade
from dgr_lightning.scoring.maths.answer_form import (
    has_letters,
    is_product,
    is_words,
    normalise,
    plain_latex,
    unit_of,
    without_braces,
    without_letter_unit,
    without_units,
)
from dgr_lightning.scoring.maths.final_answer import Final, find_final
from dgr_lightning.scoring.maths.words import same_words
from dgr_lightning.scoring.maths.worker import HAS_CLOCK
from dgr_lightning.scoring.maths.written_numbers import same_number
from dgr_lightning.threads import usable_cores

MAX_CHARACTERS = 2_000
"""A longer final or gold answer is compared as text alone; the longest gold of MATH-500 has 53 characters."""

MAX_SHOWN = 400
"""Characters of a final answer that a grade holds."""

MAX_WORKERS = 8

PAIRS_A_WORKER = 24
"""A further worker is started for so many pairs: it takes a tenth of a second, and with math-verify one to two seconds."""

Equal = bool | Literal["timeout"] | None
"""Whether a pair is equal; None: nothing that can be compared."""

Pair = tuple[str, str]


class MathsGrader:
    """Grades the answers to maths problems; a context manager, because it may hold processes.

    A process starts when pairs first need it, lives as long as the grader, and is replaced after it was killed. Verdicts are
    remembered, so that an answer that many samples give is compared once. Not thread-safe.

    """

    version: ClassVar[int] = 2

    def __init__(self, seconds: float = 3.0) -> None:
        """Starts nothing yet.

        Args:
            seconds: limit of one comparison, in time that its process computes.
        """
        self._seconds = seconds
        self._known: dict[Pair, Equal] = {}
        self._workers = [LimitedProcess("dgr_lightning.scoring.maths.worker")]

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Ends the processes."""
        self.close()

    def close(self) -> None:
        """Ends the processes that are running; a further grading may start others."""
        for worker in self._workers:
            worker.close()

    def grades(self, pairs: Sequence[tuple[str | None, str]], advance: Callable[[int], object] = ignore) -> list[Grade]:
        """Returns the grade of every (text after thinking, gold answer): LaTeX or a number, without a box.

        Raises:
            UserError: math-verify is not installed.
        """
        grades: list[Grade | None] = []
        waiting: dict[Pair, list[tuple[int, Final]]] = {}
        for answer, gold in pairs:
            final = None if answer is None else find_final(answer)
            pair = None if final is None else self._settled(final.text, gold)
            if final is not None and isinstance(pair, tuple):
                waiting.setdefault(pair, []).append((len(grades), final))
                grades.append(None)
            else:
                grades.append(_grade(final, pair if isinstance(pair, bool) else None))
                advance(1)

        def done(pair: Pair) -> None:
            for place, final in waiting[pair]:
                grades[place] = _grade(final, self._known[pair])
            advance(len(waiting[pair]))

        self._compare(list(waiting), done)
        return [grade for grade in grades if grade is not None]

    def grade(self, answer: str | None, gold: str) -> Grade:
        """Returns the grade of one answer, as `grades` does."""
        return self.grades([(answer, gold)])[0]

    def _settled(self, final: str, gold: str) -> bool | Pair:
        """Returns whether a final answer is the gold one where that needs no process, else what is to be compared."""
        gold = _bare_gold(gold)
        if max(len(final), len(gold)) > MAX_CHARACTERS:
            return "".join(final.split()) == "".join(gold.split())
        left, right = normalise(final), normalise(gold)
        if not left:
            return False
        if _unlike_units(final, gold):
            return False
        if left.replace(" ", "") == right.replace(" ", ""):
            return True
        same, by_words = same_words(left, right)
        if same or (by_words and is_words(right) and not is_product(right)):
            return same
        answer, target = _in_parts(final, gold)
        if (same_value := same_number(answer, target)) is not None:
            return same_value
        return answer, target

    def _compare(self, pairs: Sequence[Pair], done: Callable[[Pair], None]) -> None:
        """Compares pairs and remembers the results, in as many processes as are worth it."""
        unknown = deque(pair for pair in pairs if pair not in self._known)
        for pair in pairs:
            if pair in self._known:
                done(pair)
        num_workers = max(1, min(usable_cores(), MAX_WORKERS, len(unknown) // PAIRS_A_WORKER))
        while len(self._workers) < num_workers:
            self._workers.append(LimitedProcess("dgr_lightning.scoring.maths.worker"))
        lock = threading.Lock()

        def work(worker: LimitedProcess) -> None:
            while True:
                try:
                    pair = unknown.popleft()
                except IndexError:
                    return
                equal = self._compared(worker, pair)
                with lock:
                    self._known[pair] = equal
                    done(pair)

        if num_workers == 1:
            work(self._workers[0])
            return
        for worker in self._workers[:num_workers]:
            worker.start()  # by this thread: a child may end with the thread that started it
        with ThreadPoolExecutor(num_workers, thread_name_prefix="grading") as pool:
            try:
                for result in [pool.submit(work, worker) for worker in self._workers[:num_workers]]:
                    result.result()
            finally:
                unknown.clear()

    def _compared(self, worker: LimitedProcess, pair: Pair) -> Equal:
        """Returns whether a pair is equal."""
        question = {"answer": pair[0], "gold": pair[1], "seconds": self._seconds}
        try:
            equal: Equal = worker.ask(question, self._seconds * BACKSTOP + START_SECONDS if HAS_CLOCK else self._seconds)[
                "equal"
            ]
        except CannotStart as error:
            raise UserError(
                f"Grading: math-verify cannot be started by {sys.executable}. Install what the project needs: "
                "pip install -r requirements.txt."
            ) from error
        except NoAnswer:
            return "timeout"
        return equal


BACKSTOP, START_SECONDS = 4.0, 30.0
"""How much longer than the worker's own clock the parent waits, for a busy machine, and for math-verify to be imported."""


def _grade(final: Final | None, equal: Equal) -> Grade:
    if final is None:
        return Grade(NO_ANSWER)
    outcome = {True: RIGHT, False: WRONG, None: UNPARSABLE, "timeout": TIMEOUT}[equal]
    return Grade(outcome, final.boxed, final.text[:MAX_SHOWN])


def _bare_gold(gold: str) -> str:
    """Returns a gold answer without a solution or a box around it, as GSM8K and MATH publish theirs."""
    if "####" in gold:
        return gold.rpartition("####")[2].strip()
    if "\\boxed" in gold or "\\fbox" in gold:
        final = find_final(gold)
        return gold if final is None else final.text
    return gold


def _unlike_units(final: str, gold: str) -> bool:
    """Whether both name a unit, and not the same: 5 cm and 5 m."""
    unit, gold_unit = unit_of(final), unit_of(gold)
    return unit is not None and gold_unit is not None and unit != gold_unit


def _in_parts(final: str, gold: str) -> Pair:
    """Returns both without units. A single letter is one only where the gold answer has no letter of its own."""
    final = _PREFACE.sub("", final)
    answer, target = (without_units(without_braces(" ".join(plain_latex(text).split()).rstrip(". "))) for text in (final, gold))
    return (answer if has_letters(gold) else without_letter_unit(answer)), target


_PREFACE = re.compile(r"^\s*\\text\{[^{}]*(?:\bis|\bare|[:=])\s*\}\s*(?=\S)")  # \text{The answer is } 4

GRADER = MathsGrader
