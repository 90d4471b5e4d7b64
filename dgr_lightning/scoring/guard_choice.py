"""Which judges of a config are guards on engines, whose models have to be found, named in hashes and given room on devices."""

from __future__ import annotations

from dataclasses import replace

from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.scoring.guard import Guard
from dgr_lightning.scoring.judge import JUDGES


def guards_of(cfg: Config) -> list[tuple[JudgeConfig, type[Guard]]]:
    """Returns those judges of a config that are guards."""
    return [(judge, guard) for judge in (cfg.judge, *cfg.judge.also) if (guard := guard_class(judge)) is not None]


def prepare_guards(cfg: Config) -> None:
    """Fetches the guards of a config and checks their templates: a run should not fail when it judges.

    Raises:
        UserError: as for `Guard.prepare`.
    """
    for judge, guard in guards_of(cfg):
        guard.of(replace(cfg, judge=judge)).prepare()


def guard_class(judge: JudgeConfig) -> type[Guard] | None:
    """Returns the class of a config's judge where that is a guard on an engine; None for any other judge.

    Raises:
        UserError: there is no such judge.
    """
    found = JUDGES.get(judge.name)
    return found if isinstance(found, type) and issubclass(found, Guard) else None
