"""A study: many runs as one command, and the findings over them. `study.name` chooses it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.errors import Incomplete, UserError

_SWEPT = {
    "seed": "write study.seeds=[…]",
    "model.seed": "write study.bases=[…]",
    "refine": "leave it out: the study takes its arms by itself",
}


def run_study(cfg: Config, overrides: Sequence[str], given: Collection[str]) -> None:
    """Makes the runs of a study that are missing, and writes what they show.

    Args:
        cfg: the resolved config, whose `study.name` is set.
        overrides: of the command line, for every run.
        given: the keys and groups that the command line names.

    Raises:
        Incomplete: some runs failed; what the others show is written.
        UserError: the command line sets a key that every study sweeps.
    """
    for key, instead in _SWEPT.items():
        if key in given:
            raise UserError(f"{key}: study.name={cfg.study.name} sweeps it; {instead}.")
    from dgr_lightning.experiments import headline, strategies

    make = {"headline": headline.run, "strategies": strategies.run}[str(cfg.study.name)]
    if not make(cfg, overrides):
        raise Incomplete(f"some runs of {Path('runs', cfg.name)} failed or are missing; the same command makes them.")
