"""Text, JSON and JSON lines on disk, and folders that appear as a whole.

Every record is written by these functions, so a file or a folder is either complete under its final name or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from dgr_lightning.errors import UserError
from dgr_lightning.json_text import why_bad
from dgr_lightning.writing import writing

# Suffix of a file or folder until it is complete.
PARTIAL = ".partial"


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically: readers see either the old content or the new."""
    write_pieces(path, [text])


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """Writes a text that is made piece by piece, atomically, with one piece in memory at a time."""
    with _whole(path) as file:
        file.writelines(pieces)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Opens a file for writing that takes its name once it is complete and synced to disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with writing(_final(path)), deleted_on_failure(partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


@contextmanager
def deleted_on_failure(partial: Path) -> Iterator[None]:
    """Deletes what was written of a file or folder that does not become complete: its room may be what is missing."""
    try:
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # which leaves a file alone
        with suppress(OSError):
            partial.unlink()
        raise


def _final(path: Path) -> Path:
    """Returns a path as it is called once the folder that it lies in is complete."""
    return Path(*(part.removesuffix(PARTIAL) for part in path.parts))


def partial_of(folder: Path) -> Path:
    """Returns the path under which a folder is filled until it is complete."""
    return folder.with_name(folder.name + PARTIAL)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Makes a folder to fill that takes its name once it is complete and synced to disk, and replaces one of that name."""
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    with writing(folder), deleted_on_failure(partial):
        partial.mkdir(parents=True)
        yield partial
        put_in_place(partial, folder)


def put_in_place(partial: Path, folder: Path) -> None:
    """Syncs a folder to disk and gives it its name; a folder of that name is first moved away, then deleted."""
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    old = folder.with_name(f"{folder.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value atomically. NaN and infinity raise ValueError: an undefined number is null."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def local_path(path: str) -> Path:
    """Returns a path that a user wrote; a ~ that stands for nobody's home stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False where the system refuses even to look, as for names that are too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_plain(path: Path, place: str) -> None:
    """Checks that an existing path is a file or a folder, before anything reads a device or a pipe that never ends.

    Args:
        path: it must exist.
        place: what names it, such as `data.path=/dev/zero`, with which the message begins.

    Raises:
        UserError: it is neither.
    """
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{place}: neither a file nor a folder but a device, a pipe or a socket; copy its content to a file.")


def read_json(path: Path, *keys: str) -> Any:
    """Returns the JSON value in a file that this project wrote.

    Args:
        path: of the file.
        keys: that the value, an object, must have.

    Raises:
        UserError: something else has damaged it.
        FileNotFoundError: there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else _why(error)
        raise UserError(f"{path}: damaged ({why}). Delete it; the same command then makes it again.") from error
    if keys and (not isinstance(value, dict) or not all(key in value for key in keys)):
        raise UserError(f"{path}: damaged (no {', '.join(keys)} in it). Delete it; the same command then makes it again.")
    return value


def _why(error: ValueError | RecursionError) -> str:
    return "not UTF-8" if isinstance(error, UnicodeError) else why_bad(error)


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Writes rows (dicts or flat dataclasses), a line each, atomically, with one row in memory at a time."""
    with _whole(path) as file:
        for row in rows:
            plain = row if isinstance(row, dict) else vars(row)
            file.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a JSONL file.

    Raises:
        UserError: the file cannot be read, or a line is not a JSON object; the message names the file and the line.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8").rstrip("\n"))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}).") from error
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({_why(error)}).") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
            yield row
