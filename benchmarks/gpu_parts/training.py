"""Part 4: optimizer steps of 1.5B, and of ten layers as wide as a 7B's, with and without recomputing them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback

from benchmarks.gpu_parts.models import DRY, Training, run
from benchmarks.gpu_parts.part import Line, Setup, each, synchronize
from benchmarks.sft_throughput import SHAPES
from dgr_lightning.training.flops import ModelFlops, peak_flops, peak_memory_bytes

_LARGE_DEVICE = 100e9  # bytes; on a smaller one 54 GB of weights, gradients and moments leave room for short rows alone


def prove(setup: Setup) -> Iterator[Line]:
    """Yields a line a training."""
    if setup.dry:
        small = wide = Training(DRY, max_tokens=1024, steps=3)
    else:
        assert setup.memory_bytes is not None
        small = Training(SHAPES["1.5B"], max_tokens=8192, steps=6)
        wide = Training(
            replace(SHAPES["7B"], layers=10, optimizer="adamw"),
            max_tokens=8192 if setup.memory_bytes > _LARGE_DEVICE else 2048,
            steps=5,
        )
    trainings = {
        "1.5B": small,
        "7B widths, 10 layers, all recomputed": replace(wide, recompute_every=1),
        "7B widths, 10 layers": wide,
        "1.5B, compiled": replace(small, compile=True),
    }
    yield from each({name: partial(_measure, setup, training) for name, training in trainings.items()})


def _measure(setup: Setup, training: Training) -> Line:
    clock = StepClock()
    module, loader = training.module(setup), training.loader()
    plan = training.memory(setup, module.model.config, loader)
    run(setup, module, loader, [clock])
    flops, peak = ModelFlops.of(module.model), peak_flops(setup.device, module.precision)
    seconds = statistics.median(clock.seconds[1:])  # the first compiles and initialises
    tokens = statistics.mean(batch["num_tokens"] for batch in clock.batches[1:])
    done = statistics.mean(
        flops.step(batch["num_tokens"], batch["num_targets"], batch["num_pairs"]) for batch in clock.batches[1:]
    )
    return {
        "parameters": sum(weight.numel() for weight in module.model.parameters()),
        "tokens_per_step": tokens,
        "rows_per_step": statistics.mean(len(batch["rows"]) for batch in clock.batches[1:]),
        "longest_row": max(row["input_ids"].shape[1] for batch in clock.batches for row in batch["rows"]),
        "first_step_seconds": clock.seconds[0],
        "step_seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "mfu": None if peak is None else done / seconds / peak,
        "peak_bytes": (highest := peak_memory_bytes(setup.device)),
        "planned_bytes": plan.total,
        "peak_over_plan": None if setup.dry else highest / plan.total,  # of a CPU's process, the peak holds Python and torch
        "planned_moment": plan.moment,
        "reserved_bytes": None if setup.dry else torch.cuda.max_memory_reserved(),
        "loss_first": module.totals.loss_first,
        "loss_last": module.totals.loss_last,
    }


class StepClock(Callback):
    """The duration of every step, from its batch to its new weights, and the batches."""

    def __init__(self) -> None:
        """Has no steps yet."""
        self.seconds: list[float] = []
        self.batches: list[Any] = []
        self._start = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts the clock."""
        synchronize()
        self._start = perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops it when the device is done."""
        synchronize()
        self.seconds.append(perf_counter() - self._start)
        self.batches.append(batch)
