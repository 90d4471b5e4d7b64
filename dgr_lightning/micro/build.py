"""Provides the miniature's folder; a machine that does not have it yet pretrains it first."""

from __future__ import annotations

import fcntl
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from dgr_lightning.console import say
from dgr_lightning.files import whole_folder, write_json

if TYPE_CHECKING:
    from dgr_lightning.micro.pretraining import Recipe


def shipped_recipe(seed: int) -> Recipe:
    """Returns the shipped recipe with a pretraining seed."""
    from dgr_lightning.micro.pretraining import Recipe

    return replace(Recipe(), seed=seed)


def build(seed: int, cache: Path, precision: str) -> Path:
    """Returns the miniature's folder, pretraining it on first use.

    The folder gets its final name only when it is complete; a second process waits for the first.

    Args:
        seed: pretraining seed.
        cache: where to keep it; the folder is named by recipe hash, precision and seed.
        precision: bf16 or fp32, the type of the computation.
    """
    recipe = shipped_recipe(seed)
    folder = cache / "micro" / f"{recipe.hash}-{precision}-seed{seed}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        from dgr_lightning.micro.pretraining import grow

        say("Pretraining [bold]the miniature[/] from scratch, once: two minutes with AVX-512, fifteen without.")
        start = monotonic()
        with whole_folder(folder) as partial:
            grow(recipe, partial, precision)
            write_json(
                partial / "recipe.json", {"name": "micro", "hash": recipe.hash, "precision": precision, **asdict(recipe)}
            )
        say(f"The miniature is in {folder} ({monotonic() - start:.1f} s).")
    return folder
