"""Keys of `logger`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import NEVER, setting


@dataclass
class LoggerConfig:
    """Where curves go besides metrics.csv."""

    name: str = setting("csv", "csv alone, or wandb too", choices=("csv", "wandb"), hashed=NEVER)
    project: str = setting("dgr-lightning", "W&B project", private=False, hashed=NEVER)
    entity: Optional[str] = setting(None, "W&B team or user; null: your default", private=True, hashed=NEVER)
    group: Optional[str] = setting(None, "W&B group; null: the run's name", private=False, hashed=NEVER)
    outputs: str = setting(
        "harmless",
        "tables of outputs that W&B gets: none; harmless, those of reasoning and benign benchmarks; all, with harmful requests "
        "and tasks of your own",
        choices=("none", "harmless", "all"),
        hashed=NEVER,
    )
    rows: int = setting(100, "samples a task in these tables", low=1, hashed=NEVER)
