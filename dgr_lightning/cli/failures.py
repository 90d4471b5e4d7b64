"""How a failure is shown, and the exit code that it stands for."""

from __future__ import annotations

import sys
import traceback

from dgr_lightning.errors import Incomplete, UserError
from dgr_lightning.visible_text import visible, without_secrets

DONE, FAILED, BAD_CONFIG, INTERRUPTED = 0, 1, 2, 130

_LEGIBLE = 3000


def exit_code(error: BaseException) -> int:
    """Returns 2 for an error that the user can put right, 1 for any other."""
    return BAD_CONFIG if isinstance(error, UserError) else FAILED


def show_failure(error: BaseException) -> None:
    """Shows why a run failed: a user error by its message, anything else by its traceback and one line that says what to do."""
    if isinstance(error, (UserError, Incomplete)):
        show_error(str(error))
        return
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    sys.stderr.write(visible(without_secrets("".join(traceback.format_exception(type(error), error, frames)))))
    show_error(
        f"{type(error).__name__}: {error} (traceback above). Everything generated and trained is kept: the same command "
        "continues from there.",
        "the run failed",
    )


def show_error(message: str, title: str = "error") -> None:
    """Prints one message on standard error."""
    from rich.markup import escape

    from dgr_lightning.console import SafeConsole

    SafeConsole(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]{title}:[/] {escape(_legible(message))}")


def _legible(message: str) -> str:
    """Returns a message without its middle where it quotes more than anybody reads, such as an override of a megabyte."""
    if len(message) <= _LEGIBLE:
        return message
    half = _LEGIBLE // 2
    return f"{message[:half]} … [{len(message) - 2 * half:,} characters] … {message[-half:]}"
