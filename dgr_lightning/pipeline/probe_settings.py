"""Every `auto` of `probes` becomes a number, before the run is named: the run hash holds the numbers.

`probes.every` follows from the number of optimizer steps, which follows from the number of examples of the source set. That is
counted once for a set and a draw, and remembered in the cache. Examples that refinement takes out later
(`refine.on_failure=drop`, the pairs of a length-matched arm) shorten the training and leave the cadence as it was decided here.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config
from dgr_lightning.config.keys import hashed
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say, silence
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json, write_json
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.generation_settings import authors_sampling
from dgr_lightning.pipeline.identity import RECIPE_VERSION
from dgr_lightning.pipeline.overlap import load_sources, measured_prompts
from dgr_lightning.training.probe_schedule import probe_interval
from dgr_lightning.writing import CannotWrite


def drop_unused_cadence(cfg: Config) -> None:
    """Turns `probes.every=auto` into 0 where there is no task to probe, in place: nothing has to be counted for that."""
    if cfg.probes.every == AUTO and not cfg.probes.tasks:
        cfg.probes.every = 0


def settle_sampling(cfg: Config, folder: Path) -> None:
    """Turns `auto` of temperature, top_p and top_k into what a model's authors say, in place; greedy where they say nothing.

    Args:
        cfg: `probes` is read and changed.
        folder: of the model.

    Raises:
        UserError: its generation_config.json holds no such numbers.
    """
    probes = cfg.probes
    if not probes.every:
        probes.temperature, probes.top_p, probes.top_k = 0.0, 1.0, 0  # so that it makes no difference to the hash
        return
    authors = authors_sampling(folder) if AUTO in (probes.temperature, probes.top_p, probes.top_k) else None
    if authors is None:
        return
    probes.temperature = authors.temperature if probes.temperature == AUTO else probes.temperature
    greedy = probes.temperature == 0
    probes.top_p = (1.0 if greedy else authors.top_p) if probes.top_p == AUTO else probes.top_p
    probes.top_k = (0 if greedy else authors.top_k) if probes.top_k == AUTO else probes.top_k


def settle_cadence(cfg: Config, num_examples: int) -> None:
    """Turns `probes.every=auto` into a number, in place, and says which; a number stays.

    Args:
        cfg: `sft` and `probes` are read, `probes.every` is changed.
        num_examples: of the source set, as it is drawn.
    """
    from dgr_lightning.training.packing import num_steps  # imports torch

    if cfg.probes.every == AUTO:
        steps = num_steps(num_examples, cfg.sft.batch_size, cfg.sft.epochs, cfg.sft.max_steps)
        cfg.probes.every = probe_interval(steps)
        say(f"auto: probes.every={cfg.probes.every} (a fifth of {steps:,} steps)")


def num_examples(cfg: Config, data_hash: str) -> int:
    """Returns the number of examples of a run's source set, which is read for that once and then remembered.

    Args:
        cfg: `data` and `seed` are read, and with `data.drop_overlap` what the run is measured on.
        data_hash: over the content of the source set, and of what it is measured on where that counts.

    Raises:
        UserError: the set cannot be read.
    """
    draw = hashed(cfg, "refine")["data"]
    file = cache_dir() / "example_counts" / f"{content_hash('examples', RECIPE_VERSION, data_hash, draw, cfg.seed)}.json"
    with suppress(FileNotFoundError, UserError):  # a damaged one is made again
        return int(read_json(file, "examples")["examples"])
    with silence():  # the stage, which reads the set again, says what there is to say
        count = len(load_sources(cfg, measured_prompts(cfg) if cfg.data.drop_overlap else {}).examples)
    with suppress(OSError, CannotWrite):  # a cache that is read-only or full costs another count next time
        write_json(file, {"examples": count})
    return count
