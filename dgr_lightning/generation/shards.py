"""Rows on disk by key, in append-only JSONL shards: what was written stays, and two processes never mix.

A row belongs to one of a fixed number of shards, by a hash of its key up to the first slash (an example's id). Who writes to a
shard holds its lock, which is the kernel's and dies with its holder, and has read the shard to its end: so a key is never
written twice, and several processes, on one machine or on a file system that several share, may fill different shards of one
folder at the same time. A process that dies leaves at worst a torn last line, which the next writer cuts off.

In memory there is only where each row lies. The form of the lines is that of open-r1's `generate_reasoning.py` (append, flush,
resume by id), with the checks that it lacks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import IO, Any, Self

from dgr_lightning.errors import UserError

NUM_SHARDS = 64
"""As many processes can fill a folder at the same time. A folder that was made with another number is not found by its keys."""

# A dead process loses nothing that was flushed; only a dead machine does, and then what was written since the last sync. That
# is due, with the next row, after so many seconds.
_SECONDS_BETWEEN_SYNCS = 5.0
_KEYED = re.compile(rb'\{"key": ("(?:[^"\\]|\\.)*")[,}]')


def shard_of(key: str) -> int:
    """Returns the shard of a key: the same for all keys with the same text before the first slash."""
    return _shard_of_name(key.partition("/")[0])


@lru_cache(maxsize=1024)  # an example's keys are looked up one after the other
def _shard_of_name(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % NUM_SHARDS


@dataclass
class _Shard:
    """One file: where its rows begin, its length up to the last whole line, and the handles on it."""

    path: Path
    offsets: dict[str, int] = field(default_factory=dict)
    whole: int = 0
    writer: IO[bytes] | None = None
    reader: IO[bytes] | None = None
    unsynced: bool = False


class ShardedRows:
    """The rows in one folder. Use it as a context manager: leaving it gives every lock back.

    Attributes:
        folder: where the shards lie.
        num_torn: incomplete last lines that were cut off here: each the mark of a process that died while writing.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Reads where every row lies; takes no lock and writes nothing.

        Args:
            folder: made when the first shard is claimed.
            header: JSON-able; everything that the rows depend on besides their keys. Every shard begins with it.

        Raises:
            UserError: the folder's rows were made under another header, or a line in their midst is unreadable.
        """
        self.folder = Path(folder)
        self.num_torn = 0
        self._header: dict[str, Any] = json.loads(json.dumps(header, allow_nan=False))
        self._synced = monotonic()
        self._shards = [_Shard(self.folder / f"shard-{number:02d}-of-{NUM_SHARDS}.jsonl") for number in range(NUM_SHARDS)]
        for shard in self._shards:
            self._read(shard)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def __len__(self) -> int:
        """Rows that are there."""
        return sum(len(shard.offsets) for shard in self._shards)

    def __contains__(self, key: str) -> bool:
        """Whether there is a row of that key."""
        return key in self._shards[shard_of(key)].offsets

    def __iter__(self) -> Iterator[str]:
        """Yields the keys, shard by shard, each in the order in which its rows were written."""
        for shard in self._shards:
            yield from shard.offsets

    def row(self, key: str) -> dict[str, Any] | None:
        """Returns a row without its key, read from the disk; None where there is none.

        Raises:
            UserError: the line is damaged.
        """
        shard = self._shards[shard_of(key)]
        offset = shard.offsets.get(key)
        if offset is None:
            return None
        shard.reader = shard.reader or open(shard.path, "rb")  # noqa: SIM115 - closed by `close`
        shard.reader.seek(offset)
        try:
            row: dict[str, Any] = json.loads(shard.reader.readline())
        except ValueError:
            raise UserError(f"{shard.path}, at byte {offset}: unreadable. Delete the file; its rows are made again.") from None
        del row["key"]
        return row

    def claim(self, number: int, *, wait: bool) -> bool:
        """Makes this process the one that writes to a shard, and reads what others have written there meanwhile.

        Args:
            number: the shard, from `shard_of`.
            wait: where another process writes to it: wait for its end, or return False.

        Raises:
            UserError: as the constructor, or the folder cannot be written to.
        """
        shard = self._shards[number]
        if shard.writer:
            return True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(shard.path, "ab")  # noqa: SIM115 - closed by `release`: the lock outlives this call
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written to ({error.strerror}). Name another cache with DGR_CACHE=."
            ) from error
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.close()
                return False
            if os.fstat(file.fileno()).st_size != shard.whole:
                self._read(shard)
                self.num_torn += shard.whole < os.fstat(file.fileno()).st_size
                file.truncate(shard.whole)
            if not shard.whole:
                shard.whole = file.write(_line({"header": self._header}))
                file.flush()
        except BaseException:
            file.close()
            raise
        shard.writer = file
        return True

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Appends a row to its shard, which is claimed; when this returns, the row survives the death of this process.

        Raises:
            ValueError: there is one of that key.
        """
        shard = self._shards[shard_of(key)]
        assert shard.writer, f"{key}: its shard was not claimed"
        if key in shard.offsets:
            raise ValueError(f"stored before: {key}")
        size = shard.writer.write(_line({"key": key, **row}))
        shard.writer.flush()
        shard.offsets[key] = shard.whole
        shard.whole += size
        shard.unsynced = True
        if monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            for written in self._shards:
                _sync(written)
            self._synced = monotonic()

    def release(self, number: int) -> None:
        """Brings a shard to the disk and gives its lock back."""
        shard = self._shards[number]
        if shard.writer:
            _sync(shard)
            shard.writer.close()
            shard.writer = None

    def close(self) -> None:
        """Releases every shard. Rows can still be read."""
        for number, shard in enumerate(self._shards):
            self.release(number)
            if shard.reader:
                shard.reader.close()
                shard.reader = None

    def _read(self, shard: _Shard) -> None:
        """Reads a shard's file anew, as far as its lines are whole."""
        shard.offsets, shard.whole = {}, 0
        if not shard.path.is_file():
            return
        position, torn = 0, False
        with open(shard.path, "rb") as file:
            # Its writer may be at work: what comes after this does not follow on what is half-written now.
            end = os.fstat(file.fileno()).st_size
            for number, line in enumerate(file, start=1):
                if position >= end:
                    break
                keyed = _KEYED.match(line)
                if not line.endswith(b"}\n") or (number > 1 and not keyed):
                    torn = True  # and the end, unless something readable follows
                elif torn:
                    raise UserError(f"{shard.path}, line {number - 1}: unreadable. Delete the file; its rows are made again.")
                else:
                    if number == 1:
                        self._refuse_other(shard.path, line)
                    elif keyed:
                        plain = keyed[1][1:-1].decode()
                        shard.offsets[json.loads(keyed[1]) if "\\" in plain else plain] = position
                    shard.whole = position + len(line)
                position += len(line)

    def _refuse_other(self, path: Path, line: bytes) -> None:
        try:
            header = json.loads(line)["header"]
        except (ValueError, KeyError):
            raise UserError(f"{path}, line 1: unreadable. Delete the file; its rows are made again.") from None
        differences = [
            f"{key}: {header.get(key)!r} there, {self._header.get(key)!r} now"
            for key in sorted({*header, *self._header})
            if header.get(key) != self._header.get(key)
        ]
        if differences:
            raise UserError(
                f"{path.parent} holds what was made otherwise ({'; '.join(differences)}). Delete the folder, or go back to "
                "those settings."
            )


def _sync(shard: _Shard) -> None:
    if shard.writer and shard.unsynced:
        os.fsync(shard.writer.fileno())
        shard.unsynced = False


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
