"""The terminal: the console that everything prints to, and progress bars.

Nothing that is printed can steer the terminal: control characters in names, ids and messages are shown as escapes, whoever
prints them, and access keys are not shown. On a terminal, bars move in place. In a log file, a bar is a line when it ends and
one every two minutes until then: logs stay readable, and a job of hours shows that it is alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderableType
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
from rich.segment import Segment
from rich.text import Text

from dgr_lightning.visible_text import visible, without_secrets


class SafeConsole(Console):
    """A console whose output holds no control character but its own colours and cursor movements."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the segments of anything that is printed, tables, panels and bars included, as `visible_text` makes them."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(without_secrets(segment.text)), segment.style)


console = SafeConsole(highlight=False)

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
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(description, total=total, completed=before, note="")

        def advance(units: int = 1, note: str | None = None) -> None:
            bars.advance(task, units)
            if note is not None:
                bars.update(task, note=note)

        yield advance


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
