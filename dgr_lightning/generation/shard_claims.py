"""The claims of one process on the shards that its jobs write to."""

from __future__ import annotations

from collections.abc import Sequence

from dgr_lightning.generation.shards import NUM_SHARDS, ShardedRows


class ShardClaims:
    """Claims on shards of several stores: made when a job first needs one, released when the shard's last job has ended.

    Attributes:
        first_folder: of the stores' folders, the first in the order in which all processes claim them.
    """

    def __init__(self, stores: Sequence[ShardedRows], side_rows: Sequence[ShardedRows]) -> None:
        """Claims nothing yet.

        Args:
            stores: whose shards are claimed together.
            side_rows: rows of the same keys that jobs claim themselves; only released here.
        """
        # All processes claim them in the same order, so that no two wait for each other.
        self._stores = sorted(stores, key=lambda store: store.folder)
        self.first_folder = self._stores[0].folder
        self._side_rows = side_rows
        self._num_users = [0] * NUM_SHARDS

    def retain(self, shard: int) -> None:
        """Counts one more user of a shard, for which `release` is called later."""
        self._num_users[shard] += 1

    def claim(self, shard: int, *, wait: bool) -> bool:
        """Claims a shard of all stores; returns False where another process has one of them and `wait` is not set."""
        return all(store.claim(shard, wait=wait) for store in self._stores)

    def release(self, shard: int) -> None:
        """Counts one user of a shard less; without any, the shard is released."""
        self._num_users[shard] -= 1
        if not self._num_users[shard]:
            for rows in (*self._stores, *self._side_rows):
                rows.release(shard)
