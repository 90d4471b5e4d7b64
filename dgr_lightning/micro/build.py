"""Provides the miniature's folder: the one that comes with the package, or one that is pretrained on first use."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from rich.markup import escape

from dgr_lightning.console import say
from dgr_lightning.files import write_json
from dgr_lightning.made_once import make_once

if TYPE_CHECKING:
    from dgr_lightning.micro.pretraining import Recipe

SHIPPED = Path(__file__).parent / "shipped"
"""The miniature of seed 0, as one machine grew it: everyone starts from the same weights. `origin.json` says which."""

SHIPPED_SEED = 0

GROWN = "recipe.json"
"""File of a folder that this machine grew: the recipe, by which runs identify it."""


ORIGIN = "origin.json"
"""File of the shipped folder: its recipe, and the machine that grew it."""


def recipe_of(seed: int) -> Recipe:
    """Returns the miniature's recipe with a pretraining seed."""
    from dgr_lightning.micro.pretraining import Recipe

    return replace(Recipe(), seed=seed)


def provide(seed: int, grow: bool, cache: Path, precision: str) -> Path:
    """Returns the miniature's folder: the shipped one for its seed, otherwise one in the cache, pretrained on first use.

    The folder gets its final name only when it is complete; a second process waits for the first.

    Args:
        seed: pretraining seed.
        grow: pretrains the shipped seed as well.
        cache: where to keep what is grown; the folder is named by recipe hash, precision and seed.
        precision: bf16 or fp32, the type of the pretraining.
    """
    if seed == SHIPPED_SEED and not grow:
        return SHIPPED
    recipe = recipe_of(seed)
    folder = cache / "micro" / f"{recipe.hash}-{precision}-seed{seed}"

    def make(partial: Path) -> None:
        from dgr_lightning.micro.pretraining import grow as pretrain

        say(f"Pretraining [bold]the miniature[/] of seed {seed} from scratch, once: minutes, see the bar.")
        pretrain(recipe, partial, precision)
        grown = {"name": "micro", "hash": recipe.hash, "precision": precision, "grow": True, **asdict(recipe)}
        write_json(partial / GROWN, grown)

    start = monotonic()
    if make_once(folder, make):
        say(f"The miniature is in {escape(str(folder))} ({monotonic() - start:.1f} s).")
    return folder
