"""How a failure is shown, and the exit code that it stands for."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from dgr_lightning.errors import Incomplete, UserError, one_line
from dgr_lightning.processes import Terminated
from dgr_lightning.visible_text import visible, without_secrets
from dgr_lightning.writing import CannotWrite, cannot_write

DONE, FAILED, BAD_CONFIG, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

NO_FAILURES = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Ways to end a program; any other exception is a failure, such as torch's exceptions that are no `Exception`."""

_KEPT = "Everything generated and trained is kept: the same command continues from there."

_LEGIBLE = 3000


def exit_code(error: BaseException) -> int:
    """Returns 2 for an error that the user can put right, 1 for any other."""
    return BAD_CONFIG if isinstance(error, UserError) else FAILED


def show_failure(error: BaseException) -> None:
    """Shows why a run failed: by its message where that says all, else by its traceback and one line that says what to do."""
    if isinstance(error, UserError):
        return show_error(str(error))
    if message := explained(error):
        return show_error(message, "the run failed")
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    with suppress(OSError):  # standard error may be a file on the disk that is full
        sys.stderr.write(visible(without_secrets("".join(traceback.format_exception(type(error), error, frames)))))
    show_error(
        f"{in_short(error)} (traceback above). {_KEPT}",
        "the run failed",
    )


def explained(error: BaseException) -> str | None:
    """Returns the message of a failure that needs no traceback: a full disk, memory that was not enough; None for any other."""
    if isinstance(error, Incomplete) and not isinstance(error, CannotWrite):
        return str(error)
    if unwritten := cannot_write(error):
        return str(unwritten)
    if isinstance(error, MemoryError) or _is_of_torch(error, "OutOfMemoryError"):
        words = one_line(error).partition(". ")[0][:100] or type(error).__name__
        return (
            f"this machine, or a device of it, has not enough memory ({words}). Smaller values of engine.batch_size, "
            f"max_new_tokens, sft.max_tokens or data.limit take less. {_KEPT}"
        )
    return None


def show_stopped(stop: KeyboardInterrupt) -> int:
    """Shows that the user or the system stopped the program, and returns the exit code: 130 for Ctrl-C, 143 for SIGTERM."""
    show_error(_KEPT[0].lower() + _KEPT[1:], "stopped")
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def end_without_threads(code: int) -> NoReturn:
    """Ends the program now: a thread may still write a checkpoint that nobody waits for any more; it stays partial."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def in_short(error: BaseException) -> str:
    """Returns a failure in a line."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return text.partition("\n")[0]
    if message := explained(error):
        return message.partition(". ")[0]
    # Of a message that quotes a traceback, the end says what happened.
    return text.rpartition("\n")[2] if "Traceback (most recent call last)" in text else f"{type(error).__name__}: {text}"


def show_error(message: str, title: str = "error") -> None:
    """Prints one message on standard error."""
    from rich.markup import escape

    from dgr_lightning.console import SafeConsole

    with suppress(OSError):  # as above
        SafeConsole(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]{title}:[/] {escape(_legible(message))}")


def _legible(message: str) -> str:
    """Returns a message without its middle where it quotes more than anybody reads, such as an override of a megabyte."""
    if len(message) <= _LEGIBLE:
        return message
    half = _LEGIBLE // 2
    return f"{message[:half]} … [{len(message) - 2 * half:,} characters] … {message[-half:]}"


def _is_of_torch(error: BaseException, name: str) -> bool:
    """Whether an exception is one of torch, which is not loaded for this."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, getattr(torch, name))
