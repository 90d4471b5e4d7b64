"""Part 8: checkpoints of a training: for how long they block it, how fast they are written, and what steps beside them take."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning.pytorch import Trainer

from benchmarks.gpu_parts.models import DRY, Training, run
from benchmarks.gpu_parts.part import Line, Setup, synchronize
from benchmarks.sft_throughput import SHAPES
from dgr_lightning.config import Config
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.packing import StepLoader
from dgr_lightning.training.recorder import Recorder

_EVERY = 4


class TimedCheckpoints(Checkpoints):
    """Checkpoints with a clock.

    Attributes:
        begun: when the latest `save` was called.
        blocked: seconds of every `save`.
    """

    def __init__(self, folder: Path) -> None:
        """Has saved nothing yet."""
        super().__init__(folder, Ranks())
        self.begun = 0.0
        self.blocked: list[float] = []

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Times the original, behind whatever the device still computes."""
        self.wait()  # for the one before: that it is still being written is the disk's doing
        synchronize()
        self.begun = perf_counter()
        super().save(*args, **kwargs)
        self.blocked.append(perf_counter() - self.begun)


class TimedRecorder(Recorder):
    """The recorder of `fit`, which notes how long steps take, and whether a checkpoint was being written in them."""

    def __init__(self, cfg: Config, checkpoints: Checkpoints, loader: StepLoader) -> None:
        """Writes no curves, and shows no progress."""
        super().__init__(cfg, checkpoints, None, None, lambda *_: None, loader)
        self.steps: dict[bool, list[float]] = {False: [], True: []}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Notes the step, then records it."""
        synchronize()
        if batch_idx > 0:
            self.steps[self._checkpoints.is_pending].append(perf_counter() - self._began)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def prove(setup: Setup) -> Iterator[Line]:
    """Yields the sizes, then the times."""
    training = Training(DRY if setup.dry else SHAPES["1.5B"], max_tokens=1024 if setup.dry else 8192, steps=2 * _EVERY)
    module, loader = training.module(setup), training.loader()
    # Weights and two moments in fp32. Two checkpoints exist at once, before the older one is deleted.
    size = 12 * sum(weight.numel() for weight in module.model.parameters())
    free = shutil.disk_usage(setup.folder).free
    yield {"case": "sizes", "checkpoint_bytes": size, "free_bytes": free}
    if free < 2.1 * size:
        raise OSError(f"{2.1 * size / 1e9:.0f} GB are needed and {free / 1e9:.0f} GB are free; --folder names another disk")
    cfg = Config()
    cfg.trainer.checkpoint_every, cfg.probes.every = _EVERY, 0
    checkpoints = TimedCheckpoints(setup.folder / "checkpoints")
    recorder = TimedRecorder(cfg, checkpoints, loader)
    run(setup, module, loader, [recorder])
    seconds = perf_counter() - checkpoints.begun  # the last one is waited for as the training ends
    yield {
        "case": "checkpoints",
        "blocking_seconds": checkpoints.blocked,
        "whole_seconds": seconds,
        "gb_per_second": size / seconds / 1e9,
        "step_seconds": statistics.median(recorder.steps[False]),
        "step_seconds_while_writing": statistics.median(recorder.steps[True]) if recorder.steps[True] else None,
    }
