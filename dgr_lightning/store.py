"""Completions on disk, appended as they finish, so that nothing generated is ever generated again.

A store is one JSONL file in a folder of its own: a header line that says under what conditions it was generated, then a line
a completion. A process that dies leaves at worst a torn last line, which the next one drops. One process writes at a time;
the lock is the kernel's and dies with its holder, and who waited for it finds what the other has stored. The form is that of
open-r1's `generate_reasoning.py` (append, flush, resume by id), with the checks that it lacks.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Any

from rich.markup import escape

from dgr_lightning.console import progress, say
from dgr_lightning.engines import Engine, Request, Sampling
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    from dgr_lightning.chat import Chat

FILE_NAME = "completions.jsonl"

# A dead process loses nothing that was flushed; only a dead machine does, and then this many seconds of work.
_SECONDS_BETWEEN_SYNCS = 5.0


@dataclass(frozen=True)
class StoredCompletion:
    """What is kept of a completion.

    Attributes:
        text: decoded, control tokens kept, end and padding cut.
        num_tokens: tokens generated, without the stop token.
        finish_reason: `stop` or `length`.
    """

    text: str
    num_tokens: int
    finish_reason: str


class CompletionStore:
    """The completions in one folder, by key. Use it as a context manager: leaving it gives the lock back.

    Attributes:
        path: the file.
        num_torn: incomplete last lines that were dropped, 0 or 1: the mark of a process that died while writing.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Reads what is there; takes no lock and writes nothing.

        Args:
            folder: made when the first completion is stored.
            header: JSON-able; everything that the completions depend on besides their keys.

        Raises:
            UserError: the folder's completions were generated under another header, or a line in their midst is unreadable.
        """
        self.path = Path(folder) / FILE_NAME
        self.num_torn = 0
        self._header: dict[str, Any] = json.loads(json.dumps(header, allow_nan=False))
        self._stored: dict[str, StoredCompletion] = {}
        self._file: IO[bytes] | None = None
        self._synced = monotonic()
        self._read()

    def __enter__(self) -> CompletionStore:
        """Returns the store itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the store."""
        self.close()

    def __len__(self) -> int:
        """Completions in the store."""
        return len(self._stored)

    def __iter__(self) -> Iterator[str]:
        """Yields the keys, in the order in which their completions were stored."""
        return iter(self._stored)

    def get(self, key: str) -> StoredCompletion | None:
        """Returns a completion, or None where it is not stored."""
        return self._stored.get(key)

    def lock(self) -> None:
        """Makes this process the one that writes, waiting for another to finish, and reads what that one has stored.

        Raises:
            UserError: as the constructor.
        """
        if self._file:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "ab")  # noqa: SIM115 (closed by `close`: the lock outlives this call)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"Another process is generating the same completions; waiting for it. ({escape(str(self.path.parent))})")
                fcntl.flock(file, fcntl.LOCK_EX)
            whole = self._read()
            file.truncate(whole)
            if not whole:
                file.write(_line({"header": self._header}))
                file.flush()
        except BaseException:
            file.close()
            raise
        self._file = file

    def append(self, key: str, completion: StoredCompletion) -> None:
        """Stores a completion; when this returns, it survives the death of this process.

        Raises:
            ValueError: there is one of that key.
        """
        self.lock()
        assert self._file
        if key in self._stored:
            raise ValueError(f"stored before: {key}")
        self._file.write(_line({"key": key, **asdict(completion)}))
        self._file.flush()
        if monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = monotonic()
        self._stored[key] = completion

    def close(self) -> None:
        """Brings everything to the disk and gives the lock back."""
        if self._file:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _read(self) -> int:
        """Reads the file anew; returns its length in bytes up to the last whole line."""
        self._stored, self.num_torn = {}, 0
        if not self.path.is_file():
            return 0
        *lines, tail = self.path.read_bytes().split(b"\n")
        whole = sum(len(line) + 1 for line in lines)
        rows = [_parse(line) for line in lines]
        # After a crash of the machine, a file system may leave zeros where the last writes should be.
        while rows and rows[-1] is None:
            rows.pop()
            whole, tail = whole - len(lines[len(rows)]) - 1, b"torn"
        self.num_torn = int(bool(tail))
        for number, row in enumerate(rows, start=1):
            if row is None or (number == 1) != ("header" in row):
                raise UserError(
                    f"{self.path}, line {number}: unreadable. Delete the file; its completions are generated again."
                )
            if number == 1:
                self._refuse_other(row["header"])
            else:
                key = row.pop("key")
                self._stored[key] = StoredCompletion(**row)
        return whole

    def _refuse_other(self, header: dict[str, Any]) -> None:
        keys = sorted({*header, *self._header})
        differences = [
            f"{key}: {header.get(key)!r} there, {self._header.get(key)!r} now"
            for key in keys
            if header.get(key) != self._header.get(key)
        ]
        if differences:
            raise UserError(
                f"{self.path.parent} holds completions that were generated otherwise ({'; '.join(differences)}). Delete the "
                "folder, or go back to those settings."
            )


def generate_stored(
    engine: Callable[[], Engine],
    chat: Chat,
    requests: Sequence[Request],
    sampling: Sampling,
    store: CompletionStore,
    label: str,
) -> dict[str, StoredCompletion]:
    """Returns the completion of every request: from the store, or generated now and stored as it finishes.

    Args:
        engine: gives the engine; called once, and only where something is missing.
        chat: decodes what the engine makes.
        requests: keys are unique.
        sampling: how to generate what is missing; the store's header has to cover it.
        store: where completions are kept. If it has to be written, it stays locked until it is closed.
        label: what the progress bar says.

    Raises:
        ValueError: two requests with the same key.
    """
    if len({request.key for request in requests}) < len(requests):
        raise ValueError("two requests with the same key")
    if any(store.get(request.key) is None for request in requests):
        store.lock()
    missing = [request for request in requests if store.get(request.key) is None]
    if missing:
        with progress(label, total=len(requests)) as advance:
            advance(len(requests) - len(missing))
            for completion in engine().generate(missing, sampling):
                text, num_tokens = chat.decode(completion.token_ids), len(completion.token_ids)
                store.append(completion.key, StoredCompletion(text, num_tokens, completion.finish_reason))
                advance(1)
    completions = {request.key: store.get(request.key) for request in requests}
    return {key: completion for key, completion in completions.items() if completion is not None}


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    """Returns a line's JSON object, or None."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
