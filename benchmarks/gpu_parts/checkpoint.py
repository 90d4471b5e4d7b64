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
        lines: one for every `save`.
    """

    def __init__(self, folder: Path, num_weights: int) -> None:
        """Takes the number of weights, each of which is 4 bytes, and 8 more with its moments."""
        super().__init__(folder, Ranks())
        self._num_weights = num_weights
        self.lines: list[Line] = []

    def save(self, step: int, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Times the original, behind whatever the device still computes."""
        self.wait()  # for the one before: that it is still being written is the disk's doing
        synchronize()
        start = perf_counter()
        super().save(step, model, optimizer, *args, **kwargs)
        what, each = ("weights and moments", 12) if optimizer is not None else ("weights alone", 4)
        self.lines.append({"case": f"step {step}, {what}", "bytes": each * self._num_weights})
        self.lines[-1]["blocking_seconds"] = perf_counter() - start

    def wait(self, seconds: float | None = None) -> None:
        """Waits, and notes how long the one that was waited for has taken in all."""
        super().wait(seconds)
        if self.lines and "seconds" not in self.lines[-1]:
            line, whole = self.lines[-1], self.seconds_to_write
            line |= {"seconds": whole, "gb_per_second": line["bytes"] / whole / 1e9}


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
    """Yields the sizes, a line a checkpoint, and what steps took."""
    # A checkpoint at two steps, and the last one, of the weights alone.
    training = Training(DRY if setup.dry else SHAPES["1.5B"], max_tokens=1024 if setup.dry else 8192, steps=2 * _EVERY + 1)
    module, loader = training.module(setup), training.loader()
    num_weights = sum(weight.numel() for weight in module.model.parameters())
    # Two checkpoints exist at once, before the older one is deleted.
    needed, free = 25 * num_weights, shutil.disk_usage(setup.folder).free
    yield {"case": "disk", "needed_bytes": needed, "free_bytes": free}
    if free < needed:
        raise OSError(f"{needed / 1e9:.0f} GB are needed and {free / 1e9:.0f} GB are free; --folder names another disk")
    cfg = Config()
    cfg.trainer.checkpoint_every, cfg.probes.every = _EVERY, 0
    checkpoints = TimedCheckpoints(setup.folder / "checkpoints", num_weights)
    recorder = TimedRecorder(cfg, checkpoints, loader)
    run(setup, training, module, loader, [recorder])
    yield from checkpoints.lines
    yield {
        "case": "steps",
        "step_seconds": statistics.median(recorder.steps[False]),
        "step_seconds_while_writing": statistics.median(recorder.steps[True]) if recorder.steps[True] else None,
    }
