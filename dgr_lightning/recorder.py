"""What a training leaves behind while it runs: curves, probes, checkpoints and the progress bar; and Lightning kept quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from dgr_lightning.checkpoints import Checkpoints
from dgr_lightning.config import Config
from dgr_lightning.console import Advance
from dgr_lightning.curves import Curves

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.sft import SafetySft

Probe = Callable[["PreTrainedModel", int], Mapping[str, float]]
"""Called with the live model and the step; returns one point of every curve."""


class Recorder(Callback):
    """Leaves the trace of a training: a row of curves a step, probes, checkpoints, and the progress bar."""

    def __init__(self, cfg: Config, checkpoints: Checkpoints, curves: Curves, probe: Probe | None, advance: Advance) -> None:
        """Takes what it writes to, and the probe; None for curves without one."""
        self._cfg, self._checkpoints, self._curves, self._probe, self._advance = cfg, checkpoints, curves, probe, advance

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Probes before any update, unless an earlier process did."""
        if self._probe is not None and trainer.global_step == 0 and 0 not in self._curves:
            self._advance(0, "probing")
            self._curves.write(0, self._probe(pl_module.model, 0))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Records an optimizer step: its row, and what else is due."""
        module: SafetySft = pl_module
        assert module.last is not None
        step, last, done = trainer.global_step, module.last, trainer.global_step == module.num_steps
        speed = last.num_targets / last.seconds
        note = f"loss {last.loss:.4f}  lr {last.lr:.1e}  {speed:,.0f} tokens/s"
        row = {"train/loss": last.loss, "train/lr": last.lr, "train/tokens_per_second": speed}
        if self._probe is not None and _due(step, self._cfg.probes.every, done):
            self._advance(0, f"{note}  probing")
            row |= self._probe(module.model, step)
        self._curves.write(step, row)
        # After the row: what a checkpoint holds, metrics.csv holds too.
        if _due(step, self._cfg.trainer.checkpoint_every, done):
            trainer.save_checkpoint(self._checkpoints.path(step))
            self._checkpoints.forget_before(step)
        self._advance(1, note)


def _due(step: int, every: int, done: bool) -> bool:
    return done or (every > 0 and step % every == 0)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's tips, device lines and warnings about things that are meant so off the screen."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(level)
