"""Text files that ship with the project and that a user can replace by path: templates and phrase lists."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.errors import UserError


def read_shipped(place: str, file: Path) -> str:
    """Returns the text of a file.

    Args:
        place: the override that named it, such as `judge.phrases=mine.txt`: what a message begins with.
        file: the user's file or the shipped one.

    Raises:
        UserError: it cannot be read, or is not UTF-8 text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{place}: cannot read it ({error.strerror}); give a text file, or null for the shipped one."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text (byte {error.start}).") from error


def read_lines(place: str, file: Path) -> list[str]:
    """Returns the lines of a list, without white space around them, blank lines and lines that open with #.

    Raises:
        UserError: as for `read_shipped`.
    """
    lines = (line.strip() for line in read_shipped(place, file).splitlines())
    return [line for line in lines if line and not line.startswith("#")]
