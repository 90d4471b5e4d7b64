"""How many bytes of its disk a training takes, from the number of its weights: the formula, for a plan and for a check.

What is not in it is small beside it, or unknown before it is made: the refined set, curves, outputs of an evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

from dgr_lightning.config import Config
from dgr_lightning.training.optimizer import OPTIMIZERS

_MASTER_BYTES = 4  # of a trained weight in a checkpoint: fp32


@dataclass(frozen=True)
class TrainingDisk:
    """Bytes that a training writes, by kind.

    Attributes:
        checkpoint: one of those that are taken while it trains: trained weights in fp32 and the optimizer's states.
        last: the one at its end, which holds optimizer states only if they are to be kept.
        model: the exported model.
    """

    checkpoint: int
    last: int
    model: int

    @classmethod
    def of(cls, trained: int, weights: int, state_bytes: float, weight_bytes: int, *, keep_optimizer: bool) -> TrainingDisk:
        """Returns the bytes of a training.

        Args:
            trained: number of weights that it changes: all, or those of the adapters.
            weights: number of weights of the model.
            state_bytes: `OptimizerSpec.stored_bytes`, for a trained weight.
            weight_bytes: for a weight of the exported model, whose type is that of the base model's folder.
            keep_optimizer: `trainer.keep_optimizer`.
        """
        checkpoint = round(trained * (_MASTER_BYTES + state_bytes))
        return cls(checkpoint, checkpoint if keep_optimizer else trained * _MASTER_BYTES, weights * weight_bytes)

    def peak(self, num_before: int, num_kept: int, *, selects: bool) -> dict[str, int]:
        """Returns the bytes that lie on the disk when they are most, by what they belong to.

        Args:
            num_before: checkpoints before the one at the end. None of those that `trainer.checkpoint_every=auto` takes need be
                counted, since they are left out where there is no room.
            num_kept: `trainer.keep_checkpoints`.
            selects: whether the checkpoint where a curve is highest is kept as well (`sft.select`).
        """
        best = self.checkpoint if selects else 0
        moments = [(min(num_before, num_kept), {"the last checkpoint": self.last})]
        moments += [(min(num_before, num_kept - 1), {"the last checkpoint": self.last, "the exported model": self.model})]
        if num_before:
            moments += [(min(num_before - 1, num_kept), {"the checkpoint that is being written": self.checkpoint})]
        held = [{"earlier checkpoints": kept * self.checkpoint + best} | others for kept, others in moments]
        return {kind: size for kind, size in max(held, key=lambda kinds: sum(kinds.values())).items() if size}

    def left(self, num_before: int, num_kept: int, *, keep_optimizer: bool) -> int:
        """Returns the bytes that stay behind once the run is whole; for the arguments see `of` and `peak`."""
        checkpoints = self.last + min(num_before, num_kept - 1) * self.checkpoint
        return self.model + (checkpoints if keep_optimizer else 0)

    def room_for_one_more(self) -> int:
        """Returns how much must be free for `auto` to take a checkpoint: its own bytes, and those of what comes at the end."""
        return self.checkpoint + self.last + self.model


def training_disk(cfg: Config, trained: int, weights: int, weight_bytes: int) -> TrainingDisk:
    """Returns what a config's training writes; for the numbers see `TrainingDisk.of`."""
    states = OPTIMIZERS.get(cfg.sft.optimizer).stored_bytes
    return TrainingDisk.of(trained, weights, states, weight_bytes, keep_optimizer=cfg.trainer.keep_optimizer)
