"""Verdicts on disk, by the content of what was judged: nothing is judged twice by the same judge.

A judge that runs or asks a model costs hours for what a comparison of runs asks again and again. Its verdicts are stored under
everything that they depend on (`Judge.content`), each under a hash of prompt and text: a killed evaluation goes on where it
was, another set of tasks asks only what is new, and several machines share the work. No text is stored, so that nothing
harmful spreads through the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config
from dgr_lightning.console import ignore
from dgr_lightning.errors import UserError
from dgr_lightning.generation.shards import ShardedRows, shard_of
from dgr_lightning.hashes import content_hash
from dgr_lightning.scoring.judge import FAILED, Exchange, Judge, Verdict, open_judge


class Costly:
    """Base of judges whose verdicts are stored, because each of them costs a model's work."""

    @property
    def at_once(self) -> int:
        """Exchanges that are judged between two writes: what a killed process loses at most."""
        return 256


class CachedJudge:
    """A judge whose verdicts are stored. Where the cache can only be read, new ones are kept in memory.

    Attributes:
        judge: gives the verdicts that are not stored.
    """

    name: ClassVar[str]
    note: ClassVar[str]
    says: ClassVar[frozenset[str]]

    def __init__(self, judge: Judge, root: Path) -> None:
        """Opens nothing yet.

        Args:
            judge: the judge.
            root: holds a folder for every content of a judge.
        """
        self.judge, self._root = judge, root
        self._unstored: dict[str, Verdict] = {}
        for name in ("name", "note", "says"):  # figures are the judge's own
            setattr(self, name, getattr(judge, name))

    @classmethod
    def of(cls, cfg: Config) -> Self:
        """Returns the judge of `cfg.judge`, its verdicts in the cache."""
        return cls(open_judge(cfg), cache_dir() / "verdicts")

    @property
    def content(self) -> Any:
        """The judge's own."""
        return self.judge.content

    def known(self, exchange: Exchange) -> Verdict | None:
        """Returns the verdict that is stored; None where there is none."""
        return self._known(_key(exchange))

    def verdicts(self, exchanges: Sequence[Exchange], advance: Callable[[int], object] = ignore) -> list[Verdict]:
        """Returns a verdict an exchange, in order; asks the judge for those that are not stored.

        Raises:
            UserError: what is stored is damaged, or the judge cannot be used.
        """
        keys = [_key(exchange) for exchange in exchanges]
        times = Counter(keys)
        missing = {key: exchange for key, exchange in zip(keys, exchanges, strict=True) if self._known(key) is None}
        advance(sum(count for key, count in times.items() if key not in missing))
        try:
            for batch in self._batches(missing):
                found = self.judge.verdicts([missing[key] for key in batch], advance)
                for key, verdict in zip(batch, found, strict=True):
                    self._keep(key, verdict)
                advance(sum(times[key] - 1 for key in batch))
        except BaseException:
            self._rows.close()  # nobody waits for the claims of a judge that failed
            raise
        verdicts = [self._known(key) for key in keys]
        assert None not in verdicts, "judged above"
        return [verdict for verdict in verdicts if verdict is not None]

    def close(self) -> None:
        """Frees what the judge holds, and closes the files."""
        self.judge.close()
        if "_rows" in vars(self):
            self._rows.close()

    @cached_property
    def _at_once(self) -> int:
        return (self.judge if isinstance(self.judge, Costly) else Costly()).at_once

    @cached_property
    def _rows(self) -> ShardedRows:
        header = {"judge": self.judge.name, "content": self.judge.content}
        return ShardedRows(self._root / content_hash(header), header)

    def _batches(self, missing: Mapping[str, Exchange]) -> Iterator[list[str]]:
        """Yields keys without a verdict, `at_once` at a time, of shards that this process has claimed.

        First of all shards that are free; then of those that another process had claimed, which has judged them by then. A
        process waits for a claim only while it holds none: no two wait for each other.
        """
        by_shard: dict[int, list[str]] = {}
        for key in sorted(missing, key=shard_of):
            by_shard.setdefault(shard_of(key), []).append(key)
        later: list[int] = []
        for wait, shards in ((False, list(by_shard)), (True, later)):
            claimed: list[int] = []
            batch: list[str] = []
            for shard in shards:
                if not self._claim(shard, wait=wait and not claimed):
                    if not wait:
                        later.append(shard)
                        continue
                    yield from self._cut(batch)
                    self._release(claimed)
                    claimed, batch = [], []
                    self._claim(shard, wait=True)
                claimed.append(shard)
                batch += [key for key in by_shard[shard] if self._known(key) is None]
                if len(batch) >= self._at_once:
                    yield from self._cut(batch)
                    self._release(claimed)
                    claimed, batch = [], []
            yield from self._cut(batch)
            self._release(claimed)

    def _cut(self, batch: Sequence[str]) -> Iterator[list[str]]:
        for start in range(0, len(batch), self._at_once):
            yield list(batch[start : start + self._at_once])

    def _claim(self, shard: int, *, wait: bool) -> bool:
        try:
            return self._rows.claim(shard, wait=wait)
        except UserError:  # the cache can only be read
            return True

    def _release(self, shards: Sequence[int]) -> None:
        for shard in shards:
            self._rows.release(shard)

    def _known(self, key: str) -> Verdict | None:
        if key in self._unstored:
            return self._unstored[key]
        row = self._rows.row(key)
        if row is None:
            return None
        try:
            return Verdict(**row)
        except TypeError:
            raise UserError(f"{self._rows.folder}: the row {key} is damaged. Delete its shard; it is judged again.") from None

    def _keep(self, key: str, verdict: Verdict) -> None:
        try:
            writable = verdict.error != FAILED and self._rows.claim(shard_of(key), wait=False)
        except UserError:
            writable = False
        if writable:
            self._rows.write(key, asdict(verdict))
        else:  # a judge that could not be asked is asked again by the next run
            self._unstored[key] = verdict


def open_cached_judge(cfg: Config) -> Judge:
    """Returns the judge of `cfg.judge`, with its verdicts in the cache where they cost a model's work.

    Raises:
        UserError: there is no such judge, or it cannot be used.
    """
    judge = open_judge(cfg)
    return CachedJudge(judge, cache_dir() / "verdicts") if isinstance(judge, Costly) else judge


def _key(exchange: Exchange) -> str:
    return content_hash(*exchange)
