"""Keys of `study`: many runs of the miniature, and what they show together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import NEVER, setting


@dataclass
class StudyConfig:
    """Many runs over bases and seeds as one command. The keys beside it on the command line are those of every run."""

    name: Optional[str] = setting(
        None,
        "headline: the safety tax of vanilla SFT and DGR; strategies: every arm of refine; null: a single run",
        choices=("headline", "strategies"),
        hashed=NEVER,
    )
    bases: list[int] = setting([0, 1, 2, 3, 4], "model.seed of each base: the unit of replication", hashed=NEVER)
    seeds: list[int] = setting([1, 2], "seeds of each base's runs", hashed=NEVER)
    lrs: list[float] = setting(
        [3e-4, 4.5e-4, 9e-4, 1.8e-3, 3e-3, 5e-3],
        "headline: the grid of learning rates; the default and its neighbours by a factor 1.25 are added",
        hashed=NEVER,
    )
    precisions: list[str] = setting(
        ["bf16", "fp32"], "headline: types of the computation in which the default run is made", private=False, hashed=NEVER
    )
    workers: Optional[int] = setting(
        None, "processes that share the bases and the cores; null: one per CPU core", low=1, hashed=NEVER
    )
    out: str = setting("docs", "folder that receives tables, figures and headline.json", private=True, hashed=NEVER)
