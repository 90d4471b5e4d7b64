"""The terminal: one console, one kind of progress bar, one voice.

On a terminal, bars move in place; in a log file, each bar is one line when it ends, so that logs stay readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

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

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints one line of the run's story; rich markup is understood, so model text must be escaped first."""
    console.print(text)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `total` units; the context value advances it by a number of units."""
    if not console.is_terminal:
        done, start = 0, monotonic()

        def count(units: int = 1) -> None:
            nonlocal done
            done += units

        yield count
        console.print(f"{description}: {done}/{total} in {monotonic() - start:.1f} s")
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(description, total=total)

        def advance(units: int = 1) -> None:
            bars.advance(task, units)

        yield advance
