"""Returns the miniature's folder, growing it where this machine never did."""

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


def recipe(seed: int) -> Recipe:
    """Returns the shipped recipe with a pretraining seed."""
    from dgr_lightning.micro.pretraining import Recipe

    return replace(Recipe(), seed=seed)


def build(seed: int, cache: Path, precision: str) -> Path:
    """Returns the miniature's folder, growing it on first use.

    Args:
        seed: pretraining seed.
        cache: where to keep it; the folder's name holds the hash of the recipe and the precision it was grown with.
        precision: bf16 or fp32, the type of the computation.

    The folder appears under its name when it is whole; a second process waits for the first.
    """
    grown = recipe(seed)
    folder = cache / "micro" / f"{grown.hash}-{precision}-seed{seed}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        from dgr_lightning.micro.pretraining import grow

        say("[bold]The miniature[/] is grown from nothing: about two minutes, once.")
        start = monotonic()
        with whole_folder(folder) as partial:
            grow(grown, partial, precision)
            write_json(partial / "recipe.json", {"name": "micro", "hash": grown.hash, "precision": precision, **asdict(grown)})
        say(f"The miniature stands in {folder} ({monotonic() - start:.1f} s).")
    return folder
