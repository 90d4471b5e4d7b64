"""Supervised fine-tuning of any Hugging Face causal language model on a refined set, with PyTorch Lightning on one device.

`SafetySft` is the mathematics: one batch is one optimizer step, whose loss is the cross entropy summed over all target tokens
of the step and divided by their number, however they lie in rows. `fit` is a training from model folder to model folder:
curves from step 0, checkpoints, and a resume that ends in the same bits as an undisturbed run (on the CPU).
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from dgr_lightning.checkpoints import Checkpoints, WholeFileIO, export
from dgr_lightning.config import Config, SftConfig
from dgr_lightning.console import progress, say
from dgr_lightning.curves import Curves, wandb_settings
from dgr_lightning.errors import UserError
from dgr_lightning.models import load_model, resolve_device, resolve_precision
from dgr_lightning.packing import StepBatch, StepLoader
from dgr_lightning.recorder import Probe, Recorder, quiet_lightning
from dgr_lightning.records import Example
from dgr_lightning.target_loss import TargetLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dgr_lightning.chat import Chat, Encoded


SILENT_CHARACTERS = 4_000_000  # less text than this is encoded in no time worth a progress bar


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to; `training` of summary.json.

    Attributes:
        steps: optimizer steps.
        target_tokens: tokens learned from, over all steps.
        tokens_per_second: target tokens per second spent in optimizer steps; probes and checkpoints are not counted.
        peak_memory_bytes: on a GPU the most that torch had allocated during training, on the CPU the most that the process
            ever held.
        loss_first: loss of the first optimizer step.
        loss_last: loss of the last one.
        resumed_from_step: 0 for an undisturbed run.
    """

    steps: int
    target_tokens: int
    tokens_per_second: float
    peak_memory_bytes: int
    loss_first: float
    loss_last: float
    resumed_from_step: int


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: its loss, its learning rate, its target tokens and the seconds it took."""

    loss: float
    lr: float
    num_targets: int
    seconds: float


@dataclass
class Totals:
    """What a training came to so far: target tokens, seconds spent in optimizer steps, first and latest loss."""

    target_tokens: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan

    def add(self, step: StepReport) -> None:
        """Counts one more step."""
        self.loss_first = step.loss if self.target_tokens == 0 else self.loss_first
        self.loss_last = step.loss
        self.target_tokens += step.num_targets
        self.seconds += step.seconds


class SafetySft(LightningModule):
    """Cross entropy on target tokens with AdamW, warm-up and cosine, and clipping of the gradient's norm.

    Attributes:
        model: fp32 master weights.
        last: what the latest optimizer step came to.
        totals: what the training came to so far, over all resumes.
    """

    def __init__(self, model: PreTrainedModel, sft: SftConfig, num_steps: int, precision: str) -> None:
        """Takes the model to be trained.

        Args:
            model: fp32 weights.
            sft: the recipe.
            num_steps: optimizer steps of the whole training; the learning rate ends there.
            precision: type of the computation: `bf16` (autocast; weights, gradients and optimizer stay fp32) or `fp32`.
        """
        super().__init__()
        self.automatic_optimization = False
        self.target_loss = TargetLoss(model.eval())
        self.model = model.train()
        self.sft = sft
        self.num_steps = num_steps
        self.precision = precision
        self.last: StepReport | None = None
        self.totals = Totals()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer: decoupled weight decay on matrices (embeddings are among them), none on the rest."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": self.sft.weight_decay},
            {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
        ]
        if self.sft.optimizer == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=self.sft.lr)
            return optimizer
        return torch.optim.AdamW(groups, lr=self.sft.lr, fused=True)

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Makes one optimizer step from the rows of a batch.

        Raises:
            FloatingPointError: the loss or its gradient is not a finite number; the weights are as they were.
        """
        start = perf_counter()
        optimizer: Any = self.optimizers()
        lr = self.sft.lr * rate(self.global_step, self.num_steps, self.sft.warmup_ratio)
        for group in optimizer.param_groups:
            group["lr"] = lr
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for row in batch["rows"]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                summed = self.target_loss(row)
            self.manual_backward(summed / batch["num_targets"])
            total += summed.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.sft.clip_norm)
        # The only time a step that the host waits for the device.
        loss, norm_value = torch.stack([total / batch["num_targets"], norm.double()]).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm_value)):
            raise FloatingPointError(
                f"step {self.global_step + 1}: the loss is {loss} and the norm of its gradient {norm_value}. Training has "
                f"diverged; a lower learning rate may hold it (sft.lr={self.sft.lr:g} here)."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.last = StepReport(loss, lr, batch["num_targets"], perf_counter() - start)
        self.totals.add(self.last)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the totals so far."""
        checkpoint["totals"] = asdict(self.totals)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from the totals."""
        self.totals = Totals(**checkpoint["totals"])


def rate(step: int, num_steps: int, warmup_ratio: float) -> float:
    """Returns the share of the peak learning rate for a step: linear warm-up, then a half cosine towards zero.

    The schedule of transformers' `get_cosine_schedule_with_warmup`, except that the warm-up's first step is not lost to a
    learning rate of zero.

    Args:
        step: counted from 0.
        num_steps: of the whole training.
        warmup_ratio: share of the steps that the rate rises.
    """
    warmup = round(warmup_ratio * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))


def fit(
    model_folder: Path,
    chat: Chat,
    examples: Sequence[Example],
    cfg: Config,
    run_dir: Path,
    probe: Probe | None = None,
    run_hash: str | None = None,
) -> TrainingResult:
    """Trains a model on a refined set: `metrics.csv`, `checkpoints/` and in the end `model/` in the run directory.

    Called again after a crash, it goes on from the last whole checkpoint.

    Args:
        model_folder: the base model.
        chat: its tokenizer and template.
        examples: the refined set.
        cfg: `seed`, `sft`, `trainer`, `probes.every` and `logger` are read.
        run_dir: where everything goes.
        probe: called with the live model and the step, before the first step, every `probes.every` steps and after the last;
            what it returns goes into the curves.
        run_hash: identity of the run for W&B; by default the name of its directory.

    Raises:
        UserError: nothing to train on, or an example that `sft.max_length` has no room for.
    """
    if not examples:
        raise UserError("There is no example to train on; with refine.on_failure=drop every one may have been dropped.")
    device = resolve_device(cfg.trainer.accelerator)
    torch.manual_seed(cfg.seed)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    encoded = _encode(chat, examples, cfg.sft.max_length)
    model = load_model(model_folder, "master", device, cfg.model.trust_remote_code)
    loader = StepLoader(
        encoded,
        batch_size=cfg.sft.batch_size,
        max_tokens=cfg.sft.max_tokens,
        seed=cfg.seed,
        epochs=cfg.sft.epochs,
        max_steps=cfg.sft.max_steps,
    )
    module = SafetySft(model, cfg.sft, loader.num_steps, resolve_precision(cfg.trainer.precision, device))
    if not module.target_loss.isolates:
        say(f"[yellow]{type(model).__name__} lets packed documents see each other: each has a row of its own.[/]")
        loader.max_tokens = 0
    checkpoints = Checkpoints(run_dir / "checkpoints")
    start, checkpoint = checkpoints.latest() or (0, None)
    if checkpoint is not None:
        say(f"going on from step {start} of {loader.num_steps}")
    settings = wandb_settings(cfg, run_dir, run_hash or run_dir.name)
    with (
        Curves(run_dir / "metrics.csv", start, settings) as curves,
        progress("training", loader.num_steps) as advance,
        quiet_lightning(),
    ):
        advance(start)
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="32-true",  # master weights; SafetySft computes in bf16 by itself
            max_steps=loader.num_steps,
            callbacks=[Recorder(cfg, checkpoints, curves, probe, advance)],
            # Without the second, Lightning would take a Slurm job's variables for its own.
            plugins=[WholeFileIO(), LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=run_dir,
        )
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    totals = module.totals
    result = TrainingResult(
        steps=loader.num_steps,
        target_tokens=totals.target_tokens,
        tokens_per_second=totals.target_tokens / totals.seconds,
        peak_memory_bytes=_peak_memory(device),
        loss_first=totals.loss_first,
        loss_last=totals.loss_last,
        resumed_from_step=start,
    )
    export(model, model_folder, run_dir / "model")
    return result


def _encode(chat: Chat, examples: Sequence[Example], max_length: int) -> list[Encoded]:
    def encode(example: Example) -> Encoded:
        try:
            return chat.encode(example.prompt, example.trace, example.answer, max_length)
        except UserError as error:
            raise UserError(f"{example.id}: {error}") from error

    size = sum(len(example.prompt) + len(example.trace) + len(example.answer) for example in examples)
    if size < SILENT_CHARACTERS:
        return [encode(example) for example in examples]
    encoded = []
    with progress("encoding", len(examples)) as advance:
        for example in examples:
            encoded.append(encode(example))
            advance(1)
    return encoded


def _peak_memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
