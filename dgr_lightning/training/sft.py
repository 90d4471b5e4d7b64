"""Supervised fine-tuning of any Hugging Face causal language model, as a LightningModule: the mathematics of a step.

A batch is one optimizer step. Its loss is the mean cross entropy of all target tokens of the step, however these are packed
into rows and on however many ranks; with `sft.loss_mean=examples` the mean over examples of their own means. `fit` is the
training around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from dgr_lightning.config import SftConfig
from dgr_lightning.distributed.fsdp import clip_gradients, reshard
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.loss import TargetLoss
from dgr_lightning.training.optimizer import OPTIMIZERS, set_learning_rate
from dgr_lightning.training.packing import RowTensors, StepBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Arguments of Lightning's Trainer: everything but the steps is the project's own.
BARE_TRAINER: dict[str, Any] = {
    "precision": "32-true",  # master weights; SafetySft opens autocast itself
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


@dataclass(frozen=True)
class StepReport:
    """One optimizer step, over all ranks.

    Attributes:
        loss: mean cross entropy, as `sft.loss_mean` takes it.
        grad_norm: of the gradient before it was clipped.
        lr: learning rate.
        num_targets: target tokens.
        num_tokens: tokens of its documents.
        num_padded_tokens: the same with padding, as in `packing.StepBatch`.
        seconds: from the batch to the new weights.
    """

    loss: float
    grad_norm: float
    lr: float
    num_targets: int
    num_tokens: int
    num_padded_tokens: int
    seconds: float


@dataclass
class Totals:
    """Sums over the optimizer steps so far; `seconds` are those spent in them, `probe_seconds` those in probes up to there.

    The names of the fields are stored in checkpoints (`places`, tokens with padding, among them): a run of an earlier version
    resumes only as long as they stay, and new ones have a default.
    """

    steps: int = 0
    target_tokens: int = 0
    tokens: int = 0
    places: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan
    probe_seconds: float = 0.0

    def add(self, step: StepReport) -> None:
        """Counts one more step."""
        self.loss_first = step.loss if self.steps == 0 else self.loss_first
        self.loss_last = step.loss
        self.steps += 1
        self.target_tokens += step.num_targets
        self.tokens += step.num_tokens
        self.places += step.num_padded_tokens
        self.seconds += step.seconds

    def state_dict(self) -> dict[str, Any]:
        """Returns the totals as plain numbers."""
        return asdict(self)


class SafetySft(LightningModule):
    """Cross entropy on target tokens, any of `OPTIMIZERS`, warm-up and cosine, and clipping of the gradient's norm.

    Attributes:
        model: trained weights in fp32; frozen ones in any type.
        totals: sums over all optimizer steps, those before a resume included.
        last_step: the latest optimizer step.
        target_loss: the model and its loss as one function; None until Lightning has called `configure_model`.
        checkpoint_due: set before a step by the first rank; after it, on every rank, what the first one had set.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sft: SftConfig,
        num_steps: int,
        precision: str,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
        shard: Callable[[PreTrainedModel], None] | None = None,
    ) -> None:
        """Takes the model to be trained.

        Args:
            model: trained weights in fp32, frozen ones without gradients; on the meta device if `shard` loads its weights.
            sft: the recipe.
            num_steps: optimizer steps of the whole training, which the learning rate's schedule spans.
            precision: type of the computation, `bf16` or `fp32`. Weights, gradients and optimizer states stay fp32.
            ranks: this process among the ranks.
            shard: shards the model and loads its weights; called once the process group exists.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.sft = sft
        self.num_steps = num_steps
        self.precision = precision
        self.totals = Totals()
        self.last_step: StepReport | None = None
        self.checkpoint_due = False
        self._ranks, self._shard = ranks, shard
        self.target_loss: TargetLoss | None = None

    def configure_model(self) -> None:
        """Shards the model if asked to, and probes how it computes its logits. Lightning may call this twice."""
        if self.target_loss is not None:
            return
        if self._shard is not None:
            self._shard(self.model)
        target_loss = TargetLoss(self.model.eval())
        # Rounding differs between devices, and ranks that disagree here would build different numbers of rows and deadlock.
        probed = (target_loss.isolates_documents, target_loss.can_fuse_head)
        target_loss.isolates_documents, target_loss.can_fuse_head = self._ranks.broadcast(probed)
        self.target_loss = target_loss
        reshard(self.model)  # no backward pass follows the probe's forward pass
        self.model.train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer that `sft.optimizer` names."""
        return OPTIMIZERS.get(self.sft.optimizer).build(self.model, self.sft, self.precision)

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Makes one optimizer step from the rows of a batch.

        Raises:
            FloatingPointError: the loss or the norm of its gradient is not finite; the weights are unchanged.
        """
        start = perf_counter()
        optimizer: Any = self.optimizers()
        lr = self.sft.lr * lr_multiplier(self.totals.steps, self.num_steps, warmup_steps(self.sft, self.num_steps))
        set_learning_rate(optimizer, lr)
        total = self._accumulate_gradients(batch)
        norm = clip_gradients(self.model, self.sft.clip_norm)
        # What the first rank has decided by its clock travels with the loss.
        total, due = self._ranks.all_reduce(torch.stack([total, torch.full_like(total, self.checkpoint_due)]))
        # Fetched from the device together: one synchronisation a step.
        loss, grad_norm, due = torch.stack([total / batch["denominator"], norm.to(total), due]).tolist()
        self.checkpoint_due = due > 0
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise FloatingPointError(
                f"step {self.totals.steps + 1}: the loss is {loss} and the norm of its gradient {grad_norm}. Training has "
                f"diverged; write a learning rate below sft.lr={self.sft.lr:g}."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        counts = batch["num_targets"], batch["num_tokens"], batch["num_padded_tokens"]
        self.last_step = StepReport(loss, grad_norm, lr, *counts, perf_counter() - start)
        self.totals.add(self.last_step)

    def rehearse(self, rows: list[RowTensors]) -> None:
        """Runs forward and backward over rows as in a step, and forgets the gradients."""
        batch: Any = {"rows": rows, "denominator": 1}
        self._accumulate_gradients(batch)
        self.zero_grad(set_to_none=True)

    def _accumulate_gradients(self, batch: StepBatch) -> torch.Tensor:
        """Runs forward and backward over this rank's rows; returns the summed loss, a scalar in fp64 on the device."""
        assert self.target_loss is not None, "Lightning calls configure_model first"
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for row in batch["rows"]:
            with self._gradient_sync(last=row is batch["rows"][-1]):
                with self._autocast():
                    summed = self.target_loss(row)
                # Gradients are averaged over the data shards, and their sum is needed. Where several ranks compute a data
                # shard together, the gradients of the root are averaged over all of these ranks, which gives the same.
                self.manual_backward(summed * (self._ranks.data_size / batch["denominator"]))
            total += summed.detach()
        return total

    def _autocast(self) -> AbstractContextManager[None]:
        """Returns autocast to the type of the computation; sharded weights are gathered in that type and need none."""
        enabled = self.precision == "bf16" and not isinstance(self.model, FSDPModule)
        context: AbstractContextManager[None] = torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
        return context

    def _gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Returns the context of a row's forward and backward passes, which says when gradients are reduced over ranks.

        DDP reduces them once a step, after the last row. FSDP reduce-scatters them after every row, so that no rank holds more
        than its own shard, and all-reduces them over replicas once a step.
        """
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_all_reduce(last)
        wrapped = self._trainer.strategy.model if self._trainer is not None else None
        if isinstance(wrapped, DistributedDataParallel) and not last:
            context: AbstractContextManager[None] = wrapped.no_sync()
            return context
        return nullcontext()


def warmup_steps(sft: SftConfig, num_steps: int) -> int:
    """Returns over how many of a training's steps its learning rate rises."""
    return round(sft.warmup_ratio * num_steps) if sft.warmup_steps is None else min(sft.warmup_steps, num_steps)


def lr_multiplier(step: int, num_steps: int, warmup: int) -> float:
    """Returns the factor of the peak learning rate at a step: linear warm-up, then a half cosine towards zero.

    The schedule of transformers' `get_cosine_schedule_with_warmup`, except that the first step of the warm-up is not wasted on
    a learning rate of zero.

    Args:
        step: counted from 0.
        num_steps: of the whole training.
        warmup: of them, those in which the learning rate rises.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))
