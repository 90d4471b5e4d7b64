"""Supervised fine-tuning of any Hugging Face causal language model, as a LightningModule: the mathematics of a step.

One batch is one optimizer step, whose loss is the cross entropy summed over all target tokens of the step and divided by their
number, however they lie in rows and on however many ranks. `fit` is the training around it.
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
from dgr_lightning.training import optimizers
from dgr_lightning.training.loss import TargetLoss
from dgr_lightning.training.packing import StepBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# For Lightning's Trainer: what it would do beside the steps, the project does itself.
BARE_TRAINER: dict[str, Any] = {
    "precision": "32-true",  # master weights; SafetySft computes in bf16 by itself
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


@dataclass(frozen=True)
class StepReport:
    """One optimizer step, of all ranks together.

    Attributes:
        loss: mean cross entropy of its target tokens.
        grad_norm: of the gradient before it was clipped.
        lr: learning rate.
        num_targets: target tokens.
        num_tokens: tokens of its documents.
        num_places: tokens that its rows had room for.
        seconds: from the batch to the new weights.
    """

    loss: float
    grad_norm: float
    lr: float
    num_targets: int
    num_tokens: int
    num_places: int
    seconds: float


@dataclass
class Totals:
    """What a training came to so far; seconds are those spent in optimizer steps."""

    steps: int = 0
    target_tokens: int = 0
    tokens: int = 0
    places: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan

    def add(self, step: StepReport) -> None:
        """Counts one more step."""
        self.loss_first = step.loss if self.steps == 0 else self.loss_first
        self.loss_last = step.loss
        self.steps += 1
        self.target_tokens += step.num_targets
        self.tokens += step.num_tokens
        self.places += step.num_places
        self.seconds += step.seconds

    def state_dict(self) -> dict[str, Any]:
        """Returns the totals as plain numbers."""
        return asdict(self)


class SafetySft(LightningModule):
    """Cross entropy on target tokens with any of `optimizers`, warm-up and cosine, and clipping of the gradient's norm.

    Attributes:
        model: trained weights in fp32; frozen ones in any type.
        totals: what the training came to so far, over all resumes; `totals.steps` counts optimizer steps.
        last: what the latest optimizer step came to.
        target_loss: the model and its loss as one function; None until Lightning has configured the model.
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
            model: trained weights in fp32, frozen ones without gradients; on the meta device where `shard` gives it its values.
            sft: the recipe.
            num_steps: optimizer steps of the whole training; the learning rate ends there.
            precision: type of the computation: `bf16` or `fp32`. Weights, gradients and optimizer stay fp32.
            ranks: which part of the training this process is.
            shard: called once the ranks can talk to each other; shards the model and loads it.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.sft = sft
        self.num_steps = num_steps
        self.precision = precision
        self.totals = Totals()
        self.last: StepReport | None = None
        self._ranks, self._shard = ranks, shard
        self.target_loss: TargetLoss | None = None

    def configure_model(self) -> None:
        """Shards the model, if it is to be, and looks at how it makes its logits. Lightning may call this twice."""
        if self.target_loss is not None:
            return
        if self._shard is not None:
            self._shard(self.model)
        looked = TargetLoss(self.model.eval())
        # Roundings differ from device to device, and who makes other rows waits for the others forever.
        looked.isolates, looked.plain_head = self._ranks.broadcast((looked.isolates, looked.plain_head))
        self.target_loss = looked
        reshard(self.model)  # nothing followed that forward pass
        self.model.train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer that `sft.optimizer` names."""
        return optimizers.build(self.model, self.sft, self.precision)

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Makes one optimizer step from the rows of a batch.

        Raises:
            FloatingPointError: the loss or its gradient is not a finite number; the weights are as they were.
        """
        start = perf_counter()
        assert self.target_loss is not None, "Lightning configures the model first"
        optimizer: Any = self.optimizers()
        lr = self.sft.lr * rate(self.totals.steps, self.num_steps, self.sft.warmup_ratio)
        optimizers.set_rate(optimizer, lr)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for row in batch["rows"]:
            with self._computing(last=row is batch["rows"][-1]):
                with self._autocast():
                    summed = self.target_loss(row)
                # Gradients are averaged over the shares of the rows; what is wanted is their sum. Where several ranks compute a
                # share together, those of the root are averaged over all of them, which comes to the same.
                self.manual_backward(summed * (self._ranks.data_size / batch["num_targets"]))
            total += summed.detach()
        norm = clip_gradients(self.model, self.sft.clip_norm)
        # All that a step has to tell, fetched from the device at once.
        total = self._ranks.all_reduce(total)
        loss, grad_norm = torch.stack([total / batch["num_targets"], norm.to(total)]).tolist()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise FloatingPointError(
                f"step {self.totals.steps + 1}: the loss is {loss} and the norm of its gradient {grad_norm}. Training has "
                f"diverged; a lower learning rate may hold it (sft.lr={self.sft.lr:g} here)."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        counts = batch["num_targets"], batch["num_tokens"], batch["num_places"]
        self.last = StepReport(loss, grad_norm, lr, *counts, perf_counter() - start)
        self.totals.add(self.last)

    def _autocast(self) -> AbstractContextManager[None]:
        """The type of the computation; shards are gathered in it."""
        enabled = self.precision == "bf16" and not isinstance(self.model, FSDPModule)
        context: AbstractContextManager[None] = torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
        return context

    def _computing(self, *, last: bool) -> AbstractContextManager[None]:
        """Around a row: ranks that hold whole gradients exchange them once a step, after the last one.

        Shards are added up over the ranks that share a copy of the weights after every row, so that nobody holds more than
        his own; over copies once a step.
        """
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_all_reduce(last)
        wrapped = self._trainer.strategy.model if self._trainer is not None else None
        if isinstance(wrapped, DistributedDataParallel) and not last:
            context: AbstractContextManager[None] = wrapped.no_sync()
            return context
        return nullcontext()


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
