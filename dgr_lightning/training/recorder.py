"""Records a training while it runs: curves, in-training evaluations (probes), checkpoints and the progress bar."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from dgr_lightning.config import Config
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import Advance, say
from dgr_lightning.training.checkpoint_cadence import Times, is_due
from dgr_lightning.training.checkpoints import Checkpoints, trained_parameters
from dgr_lightning.training.curves import Curves
from dgr_lightning.training.disk import TrainingDisk, training_disk
from dgr_lightning.training.flops import ModelFlops, peak_flops, peak_memory_bytes
from dgr_lightning.training.packing import StepLoader
from dgr_lightning.training.sft import Totals
from dgr_lightning.writing import readable_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.training.sft import SafetySft

Probe = Callable[["PreTrainedModel", int], Mapping[str, float]]
"""Called with the live model and the step, on every rank; returns one point of every curve."""

_SECONDS_TO_FINISH = 60.0  # for a checkpoint that is being written when the training fails


class Recorder(Callback):
    """Records a training: a row of curves a step, probes and checkpoints when they are due, and the progress bar.

    Attributes:
        resumed_from_step: step of the checkpoint that the training resumed from; 0 without one.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoints: Checkpoints,
        curves: Curves | None,
        probe: Probe | None,
        advance: Advance,
        loader: StepLoader,
    ) -> None:
        """Takes what it writes to, and what a resume sets.

        Args:
            cfg: `sft`, `trainer` and `probes.every` are read.
            checkpoints: of the run.
            curves: of the run; None on every rank but the first.
            probe: None to train without.
            advance: moves the progress bar.
            loader: of the training; a resume sets its next step.
        """
        self._cfg, self._ranks, self._loader = cfg, checkpoints.ranks, loader
        self._checkpoints, self._curves, self._probe, self._advance = checkpoints, curves, probe, advance
        assert probe is None or cfg.probes.every != AUTO, "pipeline/probe_settings.py gives probes.every a value"
        self._every = 0 if cfg.probes.every == AUTO else cfg.probes.every
        self._ended = self._began = self._saved = perf_counter()
        self._held_up, self._has_warned = 0.0, False
        self.resumed_from_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Resumes from the latest checkpoint; without one, probes before any update, unless an earlier process did."""
        module: SafetySft = pl_module
        assert module.target_loss is not None, "Lightning calls configure_model first"
        if not module.target_loss.isolates_documents:
            say(f"[yellow]{type(module.model).__name__} lets packed documents see each other, so each gets a row to itself.[/]")
            self._loader.max_tokens = 0
        self.resumed_from_step = self._ranks.broadcast(max(self._checkpoints.steps(), default=0))
        if self.resumed_from_step:
            state = self._checkpoints.load(self.resumed_from_step, module.model, _optimizer(trainer))
            module.totals = Totals(**state)
            self._loader.next_step = self.resumed_from_step
            say(f"resuming from step {self.resumed_from_step} of {module.num_steps}")
        elif self._probe is not None and self._ranks.broadcast(self._curves is None or 0 not in self._curves):
            self._advance(0, "probing")
            self._write(0, self._probed(module, 0))
        self._flops, self._peak = ModelFlops.of(module.model), peak_flops(module.device, module.precision)
        self._ended = self._saved = perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Takes the time at which the step has its batch; the first rank decides whether a checkpoint follows the step."""
        self._began = perf_counter()
        pl_module.checkpoint_due = self._ranks.is_first and self._wants_checkpoint(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Records an optimizer step: its row of the curves, then a probe and a checkpoint if they are due."""
        module: SafetySft = pl_module
        step, done = module.totals.steps, module.totals.steps == module.num_steps
        self._checkpoints.check()  # that the latest one has failed is said now, and not by the next one
        row, note = self._row(module, batch)
        if self._probe is not None and _due(step, self._every, done):
            self._advance(0, f"probing  {note}")
            row |= self._probed(module, step)
        self._write(step, row)
        # After the row, so that metrics.csv holds every step that a checkpoint includes.
        self._checkpoints.best = self._best_step()
        if module.checkpoint_due or step == self._checkpoints.best:
            self._saved = perf_counter()
            # No step follows the last one, which would need the optimizer's states, or change what is being written.
            optimizer = None if done and not self._cfg.trainer.keep_optimizer else _optimizer(trainer)
            self._checkpoints.save(step, module.model, optimizer, module.totals.state_dict(), copied=not done)
            self._held_up = perf_counter() - self._saved
        self._advance(1, note)
        self._ended = perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Waits for the last checkpoint and, with `sft.select`, restores the weights of the best one."""
        self._checkpoints.wait()
        module: SafetySft = pl_module
        best = self._best_step()
        if best is not None and best < module.totals.steps:
            self._ranks.broadcast(None)  # all ranks wait until the first one has renamed it
            self._checkpoints.load(best, module.model, None)
            say(f"the weights of step {best}, where {self._cfg.sft.select} is highest, become the model")

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Lets the checkpoint that is being written finish; not for ever, since ranks that write a part of it may be dead."""
        if isinstance(exception, KeyboardInterrupt) and self._checkpoints.is_pending:
            say("stopping as soon as the latest checkpoint is written; Ctrl-C again stops at once")
        with suppress(Exception):  # the training's own error is the one that counts
            self._checkpoints.wait(_SECONDS_TO_FINISH)

    def _probed(self, module: SafetySft, step: int) -> Mapping[str, float]:
        """Probes, and counts the seconds that it takes."""
        assert self._probe is not None
        start = perf_counter()
        points = self._probe(module.model, step)
        module.totals.probe_seconds += perf_counter() - start
        return points

    def _wants_checkpoint(self, trainer: Trainer, module: SafetySft) -> bool:
        """Returns whether a checkpoint follows the step that begins; `auto` takes none for which there is no room."""
        every, step = self._cfg.trainer.checkpoint_every, module.totals.steps + 1
        times = Times(self._began - self._saved, self._held_up, self._checkpoints.seconds_to_write)
        due = is_due(every, step, module.num_steps, times)
        if not due or every != AUTO or step == module.num_steps:
            return due
        needed = self._disk(module).room_for_one_more()
        if needed <= (free := shutil.disk_usage(trainer.default_root_dir).free):
            return True
        self._saved = self._began  # asked again when the next one is due
        if not self._has_warned:
            say(
                f"[yellow]no checkpoint before the end: {readable_size(free)} are free on the disk of the run, and one takes "
                f"{readable_size(needed)} with what follows at the end[/]"
            )
            self._has_warned = True
        return False

    def _disk(self, module: SafetySft) -> TrainingDisk:
        """Returns the bytes that this training writes, at least those of its checkpoints, at most those of the model."""
        trained = sum(weight.numel() for _, weight in trained_parameters(module.model))
        weights = sum(weight.numel() for weight in module.model.parameters())
        return training_disk(self._cfg, trained, weights, 4)

    def _row(self, module: SafetySft, batch: Any) -> tuple[dict[str, float], str]:
        """Returns the latest step's row of the curves, and a short form of it for the progress bar."""
        last = module.last_step
        assert last is not None, "called after a step"
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
        return row, note

    def _best_step(self) -> int | None:
        """Returns the step at which the curve of `sft.select` is highest, the latest of equals; None without `sft.select`."""
        if self._cfg.sft.select is None:
            return None
        curve = self._curves.column(self._cfg.sft.select) if self._curves is not None else {}
        steps = [step for step in curve if step > 0]  # step 0 is the base model, which has its own folder
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
    """Keeps Lightning's tips, device lines and warnings about intended settings off the screen."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            warnings.filterwarnings(
                "ignore", "torch.distributed is disabled"
            )  # a warning about checkpoints of a single process
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
