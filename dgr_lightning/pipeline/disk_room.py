"""Whether a training fits on the disk of its run directory: asked before anything is generated.

Refused is what certainly does not fit. The rewrites in the cache, the refined set and the outputs of the evaluation are not
counted: they are small beside the weights, and not known before they are made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.config.setting import AUTO
from dgr_lightning.errors import UserError
from dgr_lightning.training.checkpoint_folder import FOLDER
from dgr_lightning.training.disk import TrainingDisk, training_disk
from dgr_lightning.writing import readable_size


def check_room(cfg: Config, model_folder: Path, run_dir: Path) -> None:
    """Refuses a training that its disk has no room for; what an earlier process left of it counts as free.

    Args:
        cfg: the config, without any `auto` that becomes a value at the door.
        model_folder: the base model, of which the config and the headers of the weights are read.
        run_dir: the run directory, which exists.

    Raises:
        UserError: the bytes of each kind, how many are free, and what to write instead.
    """
    from dgr_lightning.training.export import stored_dtype
    from dgr_lightning.training.tuning import count_weights

    counts = count_weights(model_folder, cfg.tuning, cfg.model.trust_remote_code)
    if counts is None or (run_dir / "stages" / "train.json").exists():
        return
    disk = training_disk(cfg, *counts, stored_dtype(model_folder).itemsize)
    free = free_bytes(run_dir) + sum(_size(run_dir / name) for name in (FOLDER, "model"))
    refuse_without_room(cfg, disk, free, run_dir)


def peak(cfg: Config, disk: TrainingDisk) -> dict[str, int]:
    """Returns the bytes that a training certainly holds on its disk at once, by what they belong to."""
    every = cfg.trainer.checkpoint_every
    num_before = 0 if every == AUTO or every == 0 else _least_steps(cfg, every) // every
    return disk.peak(num_before, cfg.trainer.keep_checkpoints, selects=cfg.sft.select is not None)


def refuse_without_room(cfg: Config, disk: TrainingDisk, free: int, run_dir: Path) -> None:
    """Raises the UserError of `check_room` where the bytes that are free are fewer than those that are needed."""
    held = peak(cfg, disk)
    needed = sum(held.values())
    if needed <= free:
        return
    trainer = cfg.trainer
    remedies = {
        "trainer.keep_optimizer=false": trainer.keep_optimizer,
        "trainer.keep_checkpoints=1": trainer.keep_checkpoints > 1 and trainer.checkpoint_every not in (0, AUTO),
        "trainer.checkpoint_every=0": trainer.checkpoint_every not in (0, AUTO),
        "tuning=lora": cfg.tuning.method == "full",
    }
    write = ", ".join(remedy for remedy, helps in remedies.items() if helps)
    kinds = ", ".join(f"{readable_size(size)} for {kind}" for kind, size in held.items())
    raise UserError(
        f"{run_dir}: {readable_size(free)} are free on its disk, and training needs {readable_size(needed)} at once: {kinds}. "
        f"Make room there, or write hydra.run.dir= on another disk{f', or {write}' if write else ''}."
    )


def free_bytes(path: Path) -> int:
    """Returns how many bytes this user may still write on the disk of an existing path."""
    return shutil.disk_usage(path).free


def _least_steps(cfg: Config, every: int) -> int:
    """Returns how many steps come before the last one; where the size of the set is unknown, enough for every checkpoint."""
    from dgr_lightning.training.packing import num_steps

    unknown = every * (cfg.trainer.keep_checkpoints + 1)
    if cfg.data.limit is None:
        return unknown if cfg.sft.max_steps is None else cfg.sft.max_steps - 1
    return num_steps(cfg.data.limit, cfg.sft.batch_size, cfg.sft.epochs, cfg.sft.max_steps) - 1


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
