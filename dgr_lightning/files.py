"""Text, JSON and JSON lines on disk, and folders that appear as a whole.

These few functions are the only way records reach the disk, so that every file is either whole under its final name or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from dgr_lightning.errors import UserError

# What a file or folder is called until it is whole.
PARTIAL = ".partial"


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically: readers see the old content or the new, never half of it."""
    with _whole(path) as file:
        file.write(text)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file to write that takes its name when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def partial_of(folder: Path) -> Path:
    """Returns where a folder is filled until it is whole."""
    return folder.with_name(folder.name + PARTIAL)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes its name when it is whole and on the disk, in place of one that has that name."""
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    put_in_place(partial, folder)


def put_in_place(partial: Path, folder: Path) -> None:
    """Gives a folder its name once all of it is on the disk; one that has the name makes way as a whole, and is deleted."""
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
    """Returns when a file, or the list of a folder's entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value atomically. NaN and infinity are a ValueError: what is undefined is null."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the JSON value in a file that this project wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Writes rows (dicts or flat dataclasses), a line each, atomically; no more than one of them is held in memory."""
    with _whole(path) as file:
        for row in rows:
            plain = row if isinstance(row, dict) else vars(row)
            file.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a JSONL file.

    Raises:
        UserError: a line is not a JSON object; the message names the file and the line.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}).") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
            yield row
