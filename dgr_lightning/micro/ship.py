"""Grows the miniature of seed 0 on this machine and puts it into the package: `python -m dgr_lightning.micro.ship`.

To be run after every change of the recipe, whatever the model then shows: it is not chosen.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict

from dgr_lightning.cache import cache_dir
from dgr_lightning.distributed.devices import resolve_precision
from dgr_lightning.files import whole_folder, write_json
from dgr_lightning.hashes import file_hash
from dgr_lightning.micro.build import GROWN, ORIGIN, SHIPPED, SHIPPED_SEED, provide, recipe_of
from dgr_lightning.origin import origin


def main() -> None:
    """Grows it, or takes what this machine has grown, and replaces the shipped folder."""
    precision = resolve_precision("auto", "cpu")
    grown = provide(SHIPPED_SEED, grow=True, cache=cache_dir(), precision=precision)
    recipe = recipe_of(SHIPPED_SEED)
    with whole_folder(SHIPPED) as partial:
        for file in grown.iterdir():
            if file.name != GROWN:
                shutil.copyfile(file, partial / file.name)
        weights = file_hash(partial / "model.safetensors")
        description = {
            "hash": recipe.hash,
            "weights": weights,
            "precision": precision,
            **origin().to_json(),
            "recipe": asdict(recipe),
        }
        write_json(partial / ORIGIN, description)


if __name__ == "__main__":
    main()
