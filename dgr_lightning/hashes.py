"""Content hashes, and orders that follow from them: the same on every machine, wherever a thing lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from dgr_lightning.errors import UserError

T = TypeVar("T")

CHUNK_BYTES = 2**20


def content_hash(*parts: Any) -> str:
    """Returns the content hash of any JSON-able values, 16 hex digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def file_hash(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hex digits.

    Args:
        path: the file.
        advance: called with the number of bytes after every `CHUNK_BYTES` of them.

    Raises:
        UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                if advance is not None:
                    advance(len(chunk))
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def file_hashes(path: Path) -> list[list[str]]:
    """Returns name and `file_hash` of every file of a folder, sorted by relative path; a single file is called `.`."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[file.relative_to(path).as_posix(), file_hash(file)] for file in files]


def sorted_by_hash(items: Iterable[T], text: Callable[[T], str]) -> list[T]:
    """Returns items in a random-looking order that depends on nothing but each item's own text.

    The first n of it are a draw: a larger n contains the draw of a smaller one, and other items never change how two compare.

    Args:
        items: in any order.
        text: what of an item is hashed, with SHA-256: its id, after a seed where different seeds must draw differently.
    """
    return sorted(items, key=lambda item: hashlib.sha256(text(item).encode()).digest())
