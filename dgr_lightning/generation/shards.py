"""Rows on disk by key, in append-only JSONL shards that several processes may write.

A row belongs to one of a fixed number of shards, by a hash of its key up to the first slash (an example's id). The writer of a
shard holds its lock, which the kernel releases when the process dies, and has read the shard to its end. So a key is never
written twice, and several processes, on one machine or on a shared file system, may write different shards of one folder at the
same time. A process that dies leaves at most a torn last line, which the next writer removes.

Only the offset of each row is kept in memory. The scheme is that of open-r1's `generate_reasoning.py` (append, flush, resume by
id), with the checks that it lacks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from io import FileIO
from pathlib import Path
from time import monotonic
from typing import IO, Any, Self

from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import take_lock
from dgr_lightning.writing import CannotWrite, writing

NUM_SHARDS = 64
"""As many processes can write to a folder at the same time. With another number, rows stored before would not be found."""

# A process that dies loses nothing that was flushed; a machine that dies loses what was written since the last sync. The first
# row that is written after this many seconds syncs again.
_SECONDS_BETWEEN_SYNCS = 5.0
_KEYED = re.compile(rb'\{"key": ("(?:[^"\\]|\\.)*")[,}]')


def shard_of(key: str) -> int:
    """Returns the shard of a key: the same for all keys with the same text before the first slash."""
    return _shard_of_name(key.partition("/")[0])


def _file_name(number: int) -> str:
    return f"shard-{number:02d}-of-{NUM_SHARDS}.jsonl"


@lru_cache(maxsize=1024)  # the keys of an example are looked up one after the other
def _shard_of_name(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % NUM_SHARDS


@dataclass
class _Shard:
    """One file.

    Attributes:
        path: of the file.
        offsets: key → where its row begins, in bytes.
        size: bytes up to the end of the last complete line.
        writer: holds the lock, while this process does; unbuffered, so that what cannot be written is not tried again later.
        reader: open once a row was read.
        unsynced: whether something was written since the last sync.
    """

    path: Path
    offsets: dict[str, int] = field(default_factory=dict)
    size: int = 0
    writer: FileIO | None = None
    reader: IO[bytes] | None = None
    unsynced: bool = False


class ShardedRows:
    """The rows in one folder. A context manager: leaving it releases every lock.

    Attributes:
        folder: holds the shards.
        num_torn: incomplete last lines that were removed here, each left by a process that died while writing.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Reads the offset of every row; takes no lock and writes nothing.

        Args:
            folder: created when the first shard is claimed.
            header: JSON-able; everything that the rows depend on besides their keys. Every shard begins with it.

        Raises:
            UserError: the folder's rows were written under another header, or a line other than the last is unreadable.
        """
        self.folder = Path(folder)
        self.num_torn = 0
        self._header: dict[str, Any] = json.loads(json.dumps(header, allow_nan=False))
        self._synced = monotonic()
        self._shards = [_Shard(self.folder / _file_name(number)) for number in range(NUM_SHARDS)]
        for shard in self._shards:
            self._read(shard)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """Closes it; an error of that does not take the place of one that is on its way."""
        with nullcontext() if kind is None else suppress(CannotWrite):
            self.close()

    def __len__(self) -> int:
        """Returns the number of rows."""
        return sum(len(shard.offsets) for shard in self._shards)

    def __contains__(self, key: str) -> bool:
        """Whether there is a row with this key."""
        return key in self._shards[shard_of(key)].offsets

    def __iter__(self) -> Iterator[str]:
        """Yields the keys, shard by shard, each in the order in which its rows were written."""
        for shard in self._shards:
            yield from shard.offsets

    def row(self, key: str) -> dict[str, Any] | None:
        """Returns a row without its key, read from disk; None where there is none.

        Raises:
            UserError: the line is unreadable.
        """
        shard = self._shards[shard_of(key)]
        offset = shard.offsets.get(key)
        if offset is None:
            return None
        shard.reader = shard.reader or open(shard.path, "rb")  # noqa: SIM115 - closed by `close`
        shard.reader.seek(offset)
        try:
            row: dict[str, Any] = json.loads(shard.reader.readline())
            del row["key"]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise UserError(
                f"{shard.path}, at byte {offset}: unreadable. Delete the file; its rows are then generated again."
            ) from None
        return row

    def claim(self, number: int, *, wait: bool) -> bool:
        """Makes this process the writer of a shard, and reads what others have written there meanwhile.

        Args:
            number: the shard, from `shard_of`.
            wait: where another process is its writer, wait until it has finished instead of returning False.

        Raises:
            UserError: as the constructor, or the folder is not writable.
            CannotWrite: there is no room.
        """
        shard = self._shards[number]
        if shard.writer:
            return True
        try:
            with writing(self.folder, refused=False):
                self.folder.mkdir(parents=True, exist_ok=True)
                file = open(shard.path, "ab", buffering=0)  # noqa: SIM115 - closed by `release`: the lock outlives this call
        except OSError as error:
            raise UserError(
                f"{self.folder} is not writable ({error.strerror}). Name another cache with DGR_CACHE=<folder>."
            ) from error
        try:
            if not take_lock(file, wait=wait):
                file.close()
                return False
            if os.fstat(file.fileno()).st_size != shard.size:
                self._read(shard)
                self.num_torn += shard.size < os.fstat(file.fileno()).st_size
                file.truncate(shard.size)
            if not shard.size:
                shard.size = _append(shard, file, {"header": self._header})
        except BaseException:
            file.close()
            raise
        shard.writer = file
        return True

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Appends a row to its shard, which is claimed; when this returns, the row survives the death of this process.

        Raises:
            ValueError: the key is stored already.
            CannotWrite: there is no room for it; nothing of it is in the file.
        """
        shard = self._shards[shard_of(key)]
        assert shard.writer, f"{key}: its shard was not claimed"
        if key in shard.offsets:
            raise ValueError(f"stored already: {key}")
        size = _append(shard, shard.writer, {"key": key, **row})
        shard.offsets[key] = shard.size
        shard.size += size
        shard.unsynced = True
        if monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            for written in self._shards:
                _sync(written)
            self._synced = monotonic()

    def release(self, number: int) -> None:
        """Syncs a shard to disk and releases its lock."""
        shard = self._shards[number]
        if shard.writer:
            try:
                _sync(shard)
            finally:
                shard.writer.close()
                shard.writer = None

    def close(self) -> None:
        """Releases every shard, also where one cannot be synced; rows can still be read."""
        with ExitStack() as releases:
            for number in range(NUM_SHARDS):
                releases.callback(self.release, number)
        for shard in self._shards:
            if shard.reader:
                shard.reader.close()
                shard.reader = None

    def _read(self, shard: _Shard) -> None:
        """Reads the offsets of a shard's file again, up to its last complete line."""
        shard.offsets, shard.size = {}, 0
        if not shard.path.is_file():
            if os.path.lexists(shard.path):
                raise UserError(f"{shard.path}: no file, where rows are stored. Delete it, or move it away.")
            return
        position, torn = 0, False
        with open(shard.path, "rb") as file:
            # A writer may be at work: what it appends from now on is not read, as it may continue a line that is torn here.
            end = os.fstat(file.fileno()).st_size
            for number, line in enumerate(file, start=1):
                if position >= end:
                    break
                keyed = _KEYED.match(line)
                if not line.endswith(b"}\n") or (number > 1 and not keyed):
                    torn = True  # fine as the last line, an error if something readable follows
                elif torn:
                    raise UserError(
                        f"{shard.path}, line {number - 1}: unreadable. Delete the file; its rows are then generated again."
                    )
                else:
                    if number == 1:
                        self._check_header(shard.path, line)
                    elif keyed:
                        shard.offsets[self._key(shard.path, number, keyed[1])] = position
                    shard.size = position + len(line)
                position += len(line)

    def _key(self, path: Path, number: int, quoted: bytes) -> str:
        try:
            plain = quoted[1:-1].decode()
            key = str(json.loads(quoted)) if "\\" in plain else plain
            belongs = path.name == _file_name(shard_of(key))
        except ValueError:
            belongs = False
        if not belongs:  # nobody who looks for that key would find it here
            raise UserError(f"{path}, line {number}: unreadable. Delete the file; its rows are then generated again.")
        return key

    def _check_header(self, path: Path, line: bytes) -> None:
        try:
            header = dict(json.loads(line)["header"])
        except (ValueError, RecursionError, KeyError, TypeError):
            raise UserError(f"{path}, line 1: unreadable. Delete the file; its rows are made again.") from None
        differences = [
            f"{key}: {header.get(key)!r} there, {self._header.get(key)!r} now"
            for key in sorted({*header, *self._header})
            if header.get(key) != self._header.get(key)
        ]
        if differences:
            raise UserError(
                f"{path.parent} holds rows that were made with other settings ({'; '.join(differences)}). Delete the folder, "
                "or return to those settings."
            )


def _sync(shard: _Shard) -> None:
    if shard.writer and shard.unsynced:
        with writing(shard.path):
            os.fsync(shard.writer.fileno())
        shard.unsynced = False


def _append(shard: _Shard, file: FileIO, row: dict[str, Any]) -> int:
    """Appends a row to a shard's file as a whole, or not at all; returns its size in bytes."""
    line = memoryview(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    with writing(shard.path):
        try:
            rest = line
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            with suppress(OSError):
                file.truncate(shard.size)
            raise
    return len(line)
