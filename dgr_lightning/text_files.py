"""Text files that ship with the package and that a user can replace with others: templates and phrase lists."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.errors import UserError
from dgr_lightning.files import check_plain, exists


def read_text_file(place: str, file: Path) -> str:
    """Returns the text of a file.

    Args:
        place: the override that names it, such as `judge.phrases=mine.txt`, with which every message begins.
        file: the user's file or the shipped one.

    Raises:
        UserError: the file cannot be read, or is not UTF-8 text.
    """
    if exists(file):
        check_plain(file, place)
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{place}: cannot read the file ({error.strerror}); give a text file, or null for the shipped one."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text (byte {error.start}); save the file as UTF-8.") from error


def read_lines(place: str, file: Path) -> list[str]:
    """Returns the entries of a list, one a line, stripped; blank lines and lines that begin with # are skipped.

    Raises:
        UserError: as for `read_text_file`.
    """
    lines = (line.strip() for line in read_text_file(place, file).splitlines())
    return [line for line in lines if line and not line.startswith("#")]
