"""A study: many runs as one command, and the findings over them. `study.name` chooses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.errors import Incomplete


def run_study(cfg: Config, overrides: Sequence[str]) -> None:
    """Makes the runs of a study that are missing, and writes what they show.

    Args:
        cfg: the resolved config, whose `study.name` is set.
        overrides: of the command line, for every run.

    Raises:
        Incomplete: some runs failed; what the others show is written.
    """
    from dgr_lightning.experiments import headline, strategies

    make = {"headline": headline.run, "strategies": strategies.run}[str(cfg.study.name)]
    if not make(cfg, overrides):
        raise Incomplete(f"some runs of {Path('runs', cfg.name)} failed or are missing; the same command makes them.")
