"""Completions on disk, stored as they finish, so that none is ever generated twice."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from dgr_lightning.errors import UserError
from dgr_lightning.generation.shards import ShardedRows


@dataclass(frozen=True)
class StoredCompletion:
    """The stored part of a completion.

    Attributes:
        text: decoded: control tokens kept, trailing end tokens and padding removed.
        num_tokens: tokens generated, without the stop token.
        finish_reason: `stop` or `length`.
    """

    text: str
    num_tokens: int
    finish_reason: str


_TYPES = {"text": str, "num_tokens": int, "finish_reason": str}


class CompletionStore(ShardedRows):
    """The completions in one folder, by key; a shard has to be claimed before anything is appended to it."""

    def get(self, key: str) -> StoredCompletion | None:
        """Returns a completion, or None where it is not stored."""
        row = self.row(key)
        if row is None:
            return None
        if {name: type(value) for name, value in row.items()} != _TYPES:
            raise UserError(f"{self.folder}: the row {key} is damaged. Delete its shard; its rows are made again.")
        return StoredCompletion(**row)

    def append(self, key: str, completion: StoredCompletion) -> None:
        """Stores a completion; when this returns, it survives the death of this process.

        Raises:
            ValueError: the key is stored already.
        """
        self.write(key, asdict(completion))
