"""A study: many runs as one command, and the findings over them. `study.name` chooses it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.config.study import StudyConfig
from dgr_lightning.errors import Incomplete, UserError
from dgr_lightning.installation import command_line

_NOT_FOR_STUDIES = {
    "seed": "it sweeps it; write study.seeds=[…]",
    "model.seed": "it sweeps it; write study.bases=[…]",
    "refine": "it sweeps it; leave it out",
    "overwrite": "it would make runs anew each time; delete their folder instead",
}


def run_study(cfg: Config, overrides: Sequence[str], given: Collection[str]) -> None:
    """Makes the runs of a study that are missing, and writes what they show.

    Args:
        cfg: the resolved config, whose `study.name` is set.
        overrides: of the command line, for every run.
        given: the keys and groups that the command line names.

    Raises:
        Incomplete: some runs failed; what the others show is written.
        UserError: the command line sets a key that a study has no use for.
    """
    name = str(cfg.study.name)
    refused = dict(_NOT_FOR_STUDIES)
    if name == "headline":
        refused |= {key: "it probes once, on 100 problems; leave it out" for key in given if key.startswith("probes.")}
        if cfg.trainer.precision != cfg.engine.precision:
            raise UserError(
                f"trainer.precision={cfg.trainer.precision} with engine.precision={cfg.engine.precision}: study.name={name} "
                "takes one for both; write the same."
            )
    for key, why in refused.items():
        if key in given:
            raise UserError(f"{key}: study.name={name}: {why}.")
    from dgr_lightning.experiments import headline, strategies

    make = {"headline": headline.run, "strategies": strategies.run}[name]
    if not make(cfg, overrides, command_of(cfg.study, overrides)):
        raise Incomplete(f"some runs of {Path('runs', cfg.name)} failed or are missing; the same command makes them.")


def command_of(study: StudyConfig, overrides: Sequence[str]) -> str:
    """Returns the command line that makes a study again, on any number of cores."""
    usual = StudyConfig()
    changed = [
        f"study.{field.name}=[{','.join(map(str, value))}]"
        for field in fields(StudyConfig)
        if (value := getattr(study, field.name)) != getattr(usual, field.name) and isinstance(value, list)
    ]
    return " ".join([command_line("train"), f"experiment=micro-{study.name}", *changed, *overrides])
