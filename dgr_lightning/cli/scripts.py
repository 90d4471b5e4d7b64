"""The commands: `python train.py` of a checkout and `dgr-train` of an installed package are the same function.

The stages are imported when a checked config is there: they import torch.
"""

from __future__ import annotations

from typing import Any

from dgr_lightning.cli import compare as comparison
from dgr_lightning.cli.entry import entry
from dgr_lightning.config import Config
from dgr_lightning.pipeline.place import Place


@entry("train")
def train(cfg: Config, place: Place) -> Any:
    """Runs all stages, or what is missing of them, and returns what a sweep minimises."""
    from dgr_lightning.pipeline import commands

    return commands.train(cfg, place)


@entry("refine")
def refine(cfg: Config, place: Place) -> None:
    """Runs the stages up to the refined set, or what is missing of them."""
    from dgr_lightning.pipeline import commands

    commands.refine(cfg, place)


@entry("evaluate")
def evaluate(cfg: Config, place: Place) -> None:
    """Evaluates the model, or what is missing of it."""
    from dgr_lightning.pipeline import commands

    commands.evaluate(cfg, place)


def compare() -> None:
    """Compares finished runs."""
    comparison.script()
