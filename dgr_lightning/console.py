"""The terminal: one console, one kind of progress bar, one voice.

On a terminal, bars move in place; in a log file, each bar is one line when it ends, and one every few minutes until then, so
that logs stay readable and a job of hours shows that it is alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False)

_SECONDS_BETWEEN_LINES = 120.0


def say(text: str) -> None:
    """Prints one line of the run's story; rich markup is understood, so model text must be escaped first."""
    console.print(text, soft_wrap=True)


class Advance(Protocol):
    """Moves a progress bar on by a number of units, and may put a note behind it, such as the loss at that point."""

    def __call__(self, units: int = 1, note: str | None = None) -> None:
        """Moves the bar; a note stays until the next one."""


@contextmanager
def progress(description: str, total: int, before: int = 0) -> Iterator[Advance]:
    """A progress bar over `total` units, of which `before` were done earlier; the context value advances it by some more."""
    if not console.is_terminal:
        done, last_note, start = before, "", monotonic()
        said = start

        def line() -> None:
            passed = monotonic() - start
            left = f", about {passed * (total - done) / (done - before) / 60:.0f} min left" if before < done < total else ""
            console.print(f"{description}: {done}/{total} in {passed:.1f} s{left}{last_note}", soft_wrap=True)

        def count(units: int = 1, note: str | None = None) -> None:
            nonlocal done, last_note, said
            done += units
            last_note = last_note if note is None else f", {note}"
            if monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = monotonic()
                line()

        yield count
        line()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(description, total=total, completed=before, note="")

        def advance(units: int = 1, note: str | None = None) -> None:
            bars.advance(task, units)
            if note is not None:
                bars.update(task, note=note)

        yield advance
