"""The keys whose values are found by a registry: what `config/` cannot know, because it lies below everything that is found."""

from __future__ import annotations

from typing import Any

from dgr_lightning.config.schema import Members
from dgr_lightning.engines.registry import ENGINES
from dgr_lightning.refinement.strategy import STRATEGIES
from dgr_lightning.registry import Registry
from dgr_lightning.scoring.judge import JUDGES
from dgr_lightning.training.optimizer import OPTIMIZERS

REGISTRIES: tuple[Registry[Any], ...] = (STRATEGIES, ENGINES, JUDGES, OPTIMIZERS)


def members() -> Members:
    """Returns key → the names of its members, for checks and for `--help`; imports none of them."""
    return {registry.key: registry.names() for registry in REGISTRIES}
