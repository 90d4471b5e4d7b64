"""What a training leaves behind while it runs: curves, probes, checkpoints and the progress bar; and Lightning kept quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from dgr_lightning.config import Config
from dgr_lightning.console import Advance, say
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.curves import Curves
from dgr_lightning.training.flops import ModelFlops, peak_flops, peak_memory_bytes
from dgr_lightning.training.packing import StepLoader
from dgr_lightning.training.sft import Totals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.training.sft import SafetySft

Probe = Callable[["PreTrainedModel", int], Mapping[str, float]]
"""Called with the live model and the step, on every rank; returns one point of every curve."""


_PATIENCE_SECONDS = 60.0


class Recorder(Callback):
    """Leaves the trace of a training: a row of curves a step, probes, checkpoints, and the progress bar.

    Attributes:
        resumed_from_step: of the checkpoint that the training went on from; 0 without one.
    """

    def __init__(
        self,
        cfg: Config,
        ranks: Ranks,
        checkpoints: Checkpoints,
        curves: Curves | None,
        probe: Probe | None,
        advance: Advance,
        loader: StepLoader,
    ) -> None:
        """Takes what it writes to, the loader and the probe.

        Args:
            cfg: `trainer` and `probes.every` are read.
            ranks: this process.
            checkpoints: of the run.
            curves: None on every rank but the first.
            probe: None for curves without one.
            advance: moves the progress bar.
            loader: of the training; a resume tells it where to go on.
        """
        self._cfg, self._ranks, self._loader = cfg, ranks, loader
        self._checkpoints, self._curves, self._probe, self._advance = checkpoints, curves, probe, advance
        self._ended = self._began = perf_counter()
        self.resumed_from_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Goes on from the last checkpoint; without one, probes before any update, unless an earlier process did."""
        module: SafetySft = pl_module
        assert module.target_loss is not None, "Lightning configures the model first"
        if not module.target_loss.isolates:
            say(f"[yellow]{type(module.model).__name__} lets packed documents see each other: each has a row of its own.[/]")
            self._loader.max_tokens = 0
        self.resumed_from_step = self._ranks.broadcast(max(self._checkpoints.steps(), default=0))
        if self.resumed_from_step:
            state = self._checkpoints.load(self.resumed_from_step, module.model, _optimizer(trainer))
            module.totals = Totals(**state)
            self._loader.next_step = self.resumed_from_step
            say(f"going on from step {self.resumed_from_step} of {module.num_steps}")
        elif self._probe is not None and self._ranks.broadcast(self._curves is None or 0 not in self._curves):
            self._advance(0, "probing")
            self._write(0, self._probe(module.model, 0))
        self._flops, self._peak = ModelFlops.of(module.model), peak_flops(module.device, module.precision)
        self._ended = perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Notes when the step has its batch."""
        self._began = perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Records an optimizer step: its row, and what else is due."""
        module: SafetySft = pl_module
        assert module.last is not None
        step, last, done = module.totals.steps, module.last, module.totals.steps == module.num_steps
        row = {
            "train/loss": last.loss,
            "train/lr": last.lr,
            "train/grad_norm": last.grad_norm,
            "train/tokens_per_second": last.num_tokens / last.seconds,
            "train/target_tokens_per_second": last.num_targets / last.seconds,
            "train/data_wait_seconds": self._began - self._ended,
            "train/memory_gib": peak_memory_bytes(module.device) / 2**30,
        }
        note = f"loss {last.loss:.4f}  lr {last.lr:.1e}  {row['train/tokens_per_second']:,.0f} tokens/s"
        if self._peak is not None:
            flops = self._flops.step(last.num_tokens, last.num_targets, batch["num_pairs"])
            row["train/mfu"] = flops / last.seconds / (self._peak * self._ranks.size)
            note += f"  MFU {row['train/mfu']:.0%}"
        if self._probe is not None and _due(step, self._cfg.probes.every, done):
            self._advance(0, f"{note}  probing")
            row |= self._probe(module.model, step)
        self._write(step, row)
        # After the row: what a checkpoint holds, metrics.csv holds too.
        self._checkpoints.best = self._best_step()
        if _due(step, self._cfg.trainer.checkpoint_every, done) or step == self._checkpoints.best:
            self._checkpoints.save(step, module.model, _optimizer(trainer), module.totals.state_dict())
        self._advance(1, note)
        self._ended = perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Waits for the last checkpoint, and takes the weights of the best one where they are asked for."""
        self._checkpoints.wait()
        module: SafetySft = pl_module
        best = self._best_step()
        if best is not None and best < module.totals.steps:
            self._ranks.broadcast(None)  # the first one has named it
            self._checkpoints.load(best, module.model, _optimizer(trainer))
            say(f"the weights of step {best}, where {self._cfg.sft.select} is highest, become the model")

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Keeps the checkpoint that is being written; other ranks, who have a part of it, may be gone."""
        self._checkpoints.wait(_PATIENCE_SECONDS)

    def _best_step(self) -> int | None:
        """Returns the step where the curve of `sft.select` is highest, the latest of several; None where none is asked for."""
        if self._cfg.sft.select is None:
            return None
        curve = self._curves.column(self._cfg.sft.select) if self._curves is not None else {}
        steps = [step for step in curve if step > 0]  # those of the base are in its own folder
        return self._ranks.broadcast(max(steps, key=lambda step: (curve[step], step), default=None))

    def _write(self, step: int, row: Mapping[str, float]) -> None:
        if self._curves is not None:
            self._curves.write(step, row)


def _optimizer(trainer: Trainer) -> Any:
    (optimizer,) = trainer.optimizers
    return optimizer


def _due(step: int, every: int, done: bool) -> bool:
    return done or (every > 0 and step % every == 0)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps tips, device lines and warnings about things that are meant so off the screen."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # said of checkpoints of a single process
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
