"""Verdicts of a judge that is a model, for jobs that run while the target generates.

Target and guard need the same devices, so they take turns. A job that needs a verdict which is not stored is given up for this
round; when all that can be generated has been, the target's engine is released, the guard judges what all jobs need in one
batch, and the jobs start again: they find completions and verdicts in their stores, and only what was rejected is tried again.
So there are at most as many rounds as tries, and where no verdict is missing there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from dgr_lightning.config import Config
from dgr_lightning.console import ignore, progress
from dgr_lightning.scoring.cached_judge import CachedJudge
from dgr_lightning.scoring.judge import Exchange, Verdict


class Pending(Exception):
    """A verdict is not there yet: whoever needs it is asked again when it is."""


class DeferredJudge:
    """Gives verdicts that are stored, and remembers the others as wanted.

    Attributes:
        wanted: exchanges without a verdict, in the order in which they were asked about.
    """

    name: ClassVar[str]
    note: ClassVar[str]
    says: ClassVar[frozenset[str]]

    def __init__(self, judge: CachedJudge) -> None:
        """Takes the judge, which is asked by `settle` alone."""
        self.wanted: list[Exchange] = []
        self._judge = judge
        for name in ("name", "note", "says"):  # figures are the judge's own
            setattr(self, name, getattr(judge, name))

    @classmethod
    def of(cls, cfg: Config) -> Self:
        """Returns the judge of `cfg.judge`, deferred."""
        return cls(CachedJudge.of(cfg))

    @property
    def content(self) -> Any:
        """The judge's own."""
        return self._judge.content

    def verdicts(self, exchanges: Sequence[Exchange], advance: Callable[[int], object] = ignore) -> list[Verdict]:
        """Returns a verdict an exchange, in order.

        Raises:
            Pending: one of them is not stored; it is among `wanted` now.
        """
        found = [(exchange, self._judge.known(exchange)) for exchange in exchanges]
        if missing := [exchange for exchange, verdict in found if verdict is None]:
            self.wanted += missing
            raise Pending
        advance(len(exchanges))
        return [verdict for _, verdict in found if verdict is not None]

    def settle(self) -> None:
        """Judges what is wanted; afterwards nothing is."""
        wanted, self.wanted = self.wanted, []
        with progress(f"{self.name}: judging", len(wanted)) as advance:
            self._judge.verdicts(wanted, advance)

    def close(self) -> None:
        """Frees what the judge holds."""
        self._judge.close()
