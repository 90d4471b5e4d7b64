"""The terminal: the console that everything prints to, and progress bars.

Nothing that is printed can steer the terminal: control characters in names, ids and messages are shown as escapes, whoever
prints them, and access keys are not shown. On a terminal, bars move in place. In a log file, a bar is a line when it ends and
one every two minutes until then: logs stay readable, and a job of hours shows that it is alive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.panel import Panel
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
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
_BAR_CELLS = 40
# A shorter bar says nothing.
_FEWEST_BAR_CELLS = 5
_BETWEEN_PARTS = re.compile("  |, ")  # of a note


def say(text: str) -> None:
    """Prints a line about the run. Rich markup is interpreted, so text of models and data sets must be escaped first."""
    console.print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Prints what must not be overlooked, framed and in red; the text is taken as it is."""
    # A console that wraps softly would truncate the frame.
    console.print(Panel(Text(text), title="Warning", style="bold red"), soft_wrap=False)


@contextmanager
def silence() -> Iterator[None]:
    """Prints nothing while it lasts: work that is done again later, and is then shown."""
    quiet, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = quiet


class Advance(Protocol):
    """Advances a progress bar."""

    def __call__(self, units: int = 1, note: str | None = None) -> None:
        """Advances by some units.

        Args:
            units: how many were done.
            note: such as the current loss; it stays behind the bar until the next one. Its parts, the most important first,
                are separated by two spaces or a comma: a narrow terminal shows as many of them as fit.
        """


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
    with _Bars(_Line(), console=console) as bars:
        task = bars.add_task(description, total=total, completed=before, note="")

        def advance(units: int = 1, note: str | None = None) -> None:
            bars.advance(task, units)
            if note is not None:
                bars.update(task, note=note)

        yield advance


class _Line(ProgressColumn):
    """A bar as one line that fits the terminal: the bar gives way first, then the note; counts and times stay whole.

    As columns of their own, rich would take from all of them alike, and cut the numbers that the line is there for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._spinner, self._times = SpinnerColumn(), (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())

    def render(self, task: Task) -> _FittedLine:
        """Returns the line of a task, whose width is known only when it is printed."""
        figures = [Text.assemble(text) for column in self._times if isinstance(text := column(task), Text)]
        spinner = self._spinner(task)
        assert isinstance(spinner, Text)
        return _FittedLine(task, spinner, Text(" ").join(figures))


class _FittedLine:
    """A line of a bar, fitted when it is printed."""

    def __init__(self, task: Task, spinner: Text, figures: Text) -> None:
        self._task, self._spinner, self._figures = task, spinner, figures

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task = self._task
        head = Text(task.description)
        room = options.max_width - self._spinner.cell_len - self._figures.cell_len - 2
        head.truncate(max(room, 0), overflow="ellipsis")
        room -= head.cell_len
        note = _fitting(task.fields["note"], room - 1)
        bar = min(_BAR_CELLS, room - 1 - (cell_len(note) + 1 if note else 0))
        line = [self._spinner, head, self._figures]
        if bar >= _FEWEST_BAR_CELLS:
            drawn = ProgressBar(total=task.total, completed=task.completed, width=bar, animation_time=task.get_time())
            cells = Text.assemble(*((segment.text, segment.style or "") for segment in console.render(drawn, options)))
            cells.pad_right(bar - cells.cell_len)  # without colours, what is left to do is not drawn
            line.insert(2, cells)
        if note:
            line.append(Text(note))
        yield Text(" ", no_wrap=True, overflow="ellipsis").join(line)


def _fitting(note: str, cells: int) -> str:
    """Returns as many of a note's parts, from its beginning, as fit into a number of cells: no figure is cut in two."""
    ends = [*(between.start() for between in _BETWEEN_PARTS.finditer(note)), len(note)]
    return max((note[:end] for end in ends if cell_len(note[:end]) <= cells), key=len, default="")


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


def ignore(_: int) -> None:
    """Takes the place of a progress bar."""
