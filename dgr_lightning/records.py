"""What travels between the stages: safety examples, JSON lines on disk, and content hashes.

A stage reads what an earlier one wrote; these few functions are the only way records reach the disk, so that every file is
either whole under its final name or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO, overload

from dgr_lightning.errors import UserError

# What a file or folder is called until it is whole.
PARTIAL = ".partial"
HARMFUL = "harmful"
BENIGN = "benign"


@dataclass(frozen=True)
class Example:
    """One row of a safety set: a prompt, the reasoning trace and the answer that a model is to learn.

    Attributes:
        id: unique within its source and stable across machines, such as `star1-68`.
        prompt: what the user asks.
        trace: the reasoning between the think marks, without the marks; may be empty.
        answer: what follows the reasoning; never empty.
        label: `harmful` (the answer should refuse) or `benign` (it should not).
        source: name of the set that the row comes from.
    """

    id: str
    prompt: str
    trace: str
    answer: str
    label: str
    source: str


@dataclass(frozen=True)
class RefinedExample(Example):
    """An example after refinement: rewritten by the target model, or the original with the reason why not.

    Attributes:
        refined: whether any part of it is the target model's own text.
        reason: why a rewrite was not kept (a check's name); None where nothing failed.
    """

    refined: bool = False
    reason: str | None = None

    @classmethod
    def of(cls, example: Example, *, refined: bool = False, reason: str | None = None, **changes: str) -> RefinedExample:
        """Returns `example` with `changes` to its text and the outcome of refinement."""
        return cls(
            **{field.name: getattr(example, field.name) for field in fields(Example)} | changes, refined=refined, reason=reason
        )


def content_hash(*parts: Any) -> str:
    """Returns 16 hex digits over any JSON-able values: equal content, equal hash, on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


class ExampleFile(Sequence[Example]):
    """The examples of a JSONL file, read from the disk one by one: a set of any size costs the memory of its ids.

    Attributes:
        ids: of the examples, in the file's order.
    """

    def __init__(self, path: Path) -> None:
        """Reads through the file once; it must not change afterwards."""
        self.ids: list[str] = []
        self._file = open(path, "rb")  # noqa: SIM115 - open for as long as the examples are
        self._offsets: list[int] = []
        position = 0
        for line in self._file:
            self.ids.append(json.loads(line)["id"])
            self._offsets.append(position)
            position += len(line)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        """Returns an example, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._offsets[index])
        row = json.loads(self._file.readline())
        return Example(row["id"], row["prompt"], row["trace"], row["answer"], row["label"], row["source"])


def read_refined(path: Path) -> list[RefinedExample]:
    """Returns the examples of a run's `refined.jsonl`, in its order."""
    return [RefinedExample(**row) for row in read_jsonl(path)]
