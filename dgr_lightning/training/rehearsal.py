"""The largest row of a training, forward and backward, before its first step.

All rows are known before the training, and the largest comes at some step or other: where the memory of its device does not
suffice, that shows now and not after hours. The optimizer's states, which the first step makes, are counted by memory that is
taken meanwhile.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, Trainer

from dgr_lightning.training.packing import RowTensors


class Rehearsal(Callback):
    """Runs one row when the training starts. Weights, gradients, and generators of random numbers stay as they were."""

    def __init__(self, row: RowTensors, num_rows: int, state_bytes: int) -> None:
        """Takes what is run.

        Args:
            row: the largest of the training, on whichever rank; every rank runs it, since sharded ranks compute in lockstep.
            num_rows: how often; with 2, the gradients of the first are there while the second computes.
            state_bytes: of the optimizer's states on this device.
        """
        self._row, self._num_rows, self._state_bytes = row, num_rows, state_bytes

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Runs the row.

        Raises:
            OutOfMemoryError: the device has too little memory.
        """
        module: Any = pl_module
        on_gpu = module.device.type == "cuda"
        with torch.random.fork_rng([module.device] if on_gpu else []):
            states = torch.empty(self._state_bytes, dtype=torch.uint8, device=module.device)
            module.rehearse([move_data_to_device(self._row, module.device)] * self._num_rows)
            del states
        if on_gpu:
            torch.cuda.empty_cache()
