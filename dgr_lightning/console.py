"""The terminal: the console that everything prints to, and progress bars.

On a terminal, bars move in place. In a log file, a bar is a line when it ends and one every two minutes until then: logs stay
readable, and a job of hours shows that it is alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(highlight=False)

_SECONDS_BETWEEN_LINES = 120.0


def say(text: str) -> None:
    """Prints a line about the run. Rich markup is interpreted, so text of models and data sets must be escaped first."""
    console.print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Prints what must not be overlooked, framed and in red; the text is taken as it is."""
    # A console that wraps softly would truncate the frame.
    console.print(Panel(Text(text), title="Warning", style="bold red"), soft_wrap=False)


class Advance(Protocol):
    """Advances a progress bar."""

    def __call__(self, units: int = 1, note: str | None = None) -> None:
        """Advances by some units; a note, such as the current loss, stays behind the bar until the next one."""


def progress(description: str, total: int, before: int = 0) -> AbstractContextManager[Advance]:
    """Returns a progress bar to enter, which gives the function that advances it.

    Args:
        description: text in front of the bar.
        total: number of units.
        before: how many of them were done earlier, which the estimated time leaves out.
    """
    return (_drawn_bar if console.is_terminal else _logged_bar)(description, total, before)


@contextmanager
def _drawn_bar(description: str, total: int, before: int) -> Iterator[Advance]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with _Bars(*columns, console=console) as bars:
        task = bars.add_task(description, total=total, completed=before, note="")

        def advance(units: int = 1, note: str | None = None) -> None:
            bars.advance(task, units)
            if note is not None:
                bars.update(task, note=note)

        yield advance


class _Bars(Progress):
    """Leaves two cells of the line free: a terminal writes ^C there, which would begin another line and draw the bar twice."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yields the table of the bars, narrowed."""
        for table in super().get_renderables():
            yield Constrain(table, max(1, console.width - 2))


@contextmanager
def _logged_bar(description: str, total: int, before: int) -> Iterator[Advance]:
    done, last_note, start = before, "", monotonic()
    last_line = start

    def print_line() -> None:
        passed = monotonic() - start
        left = f", about {passed * (total - done) / (done - before) / 60:.0f} min left" if before < done < total else ""
        console.print(f"{description}: {done}/{total} in {passed:.1f} s{left}{last_note}", soft_wrap=True)

    def advance(units: int = 1, note: str | None = None) -> None:
        nonlocal done, last_note, last_line
        done += units
        last_note = last_note if note is None else f", {note}"
        if monotonic() - last_line > _SECONDS_BETWEEN_LINES:
            last_line = monotonic()
            print_line()

    yield advance
    print_line()
