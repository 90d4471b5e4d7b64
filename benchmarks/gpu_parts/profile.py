"""Part 5: where the time of a training step goes: kernels, idle time of the device, and where the host waits for it."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_parts.models import DRY, Training, run
from benchmarks.gpu_parts.part import Line, Setup, synchronize
from benchmarks.sft_throughput import SHAPES

_FIRST, _PROFILED = 2, 2  # steps before, and steps profiled
_TOP = 15
_WAITS = re.compile(r"cuda(Stream|Device|Event)Synchronize|cudaMemcpy$")


def prove(setup: Setup) -> Iterator[Line]:
    """Yields the line of the profiled steps, and one of the places in the code where the host waits for the device."""
    shape, max_tokens = (DRY, 1024) if setup.dry else (SHAPES["1.5B"], 8192)
    training = Training(shape, max_tokens, steps=5, compile=not setup.dry)  # which the training part does in a dry run
    profiler = StepProfiler(setup)
    run(setup, training, training.module(setup), training.loader(), [profiler])
    yield profiler.line()
    yield {"case": "where the host waits in one step", "places": dict(profiler.waits.most_common(_TOP))}


class StepProfiler(Callback):
    """Profiles two steps, and in the step after them notes where the host waits for the device.

    Attributes:
        waits: places in the code, and how often it waited there.
    """

    def __init__(self, setup: Setup) -> None:
        """Takes the device."""
        activities = [ProfilerActivity.CPU] if setup.dry else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        self._profile = profile(activities=activities)
        self._dry = setup.dry
        self._warnings = warnings.catch_warnings(record=True)
        self._caught: list[warnings.WarningMessage] = []
        self.waits: Counter[str] = Counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begins what this step is watched by."""
        if batch_idx == _FIRST:
            synchronize()
            self._profile.start()
        if batch_idx == _FIRST + _PROFILED:
            self._caught = self._warnings.__enter__() or []
            warnings.simplefilter("always")
            if not self._dry:
                torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Ends it."""
        if batch_idx == _FIRST + _PROFILED - 1:
            synchronize()
            self._profile.stop()
        if batch_idx == _FIRST + _PROFILED:
            if not self._dry:
                torch.cuda.set_sync_debug_mode("default")
            self._warnings.__exit__(None, None, None)
            self.waits.update(
                f"{warning.filename.rpartition('site-packages/')[2]}:{warning.lineno}"
                for warning in self._caught
                if "synchroniz" in str(warning.message)
            )

    def line(self) -> Line:
        """Returns what was profiled; in a dry run operators of the CPU stand in for kernels."""
        events: list[FunctionEvent] = list(self._profile.events() or [])
        kind = torch.autograd.DeviceType.CPU if self._dry else torch.autograd.DeviceType.CUDA
        kernels = [event for event in events if event.device_type == kind and not event.is_user_annotation]
        waits = Counter(event.name for event in events if _WAITS.match(event.name))
        busy, span = _busy(kernels)
        totals: Counter[str] = Counter()
        for event in kernels:
            totals[event.name] += event.time_range.elapsed_us()
        return {
            "case": f"{_PROFILED} steps",
            "step_ms": span / 1000 / _PROFILED,
            "idle_share": 1 - busy / span,
            "kernels_per_step": len(kernels) / _PROFILED,
            "synchronisations_per_step": {name: number / _PROFILED for name, number in waits.items()},
            "top_kernels": [
                {"name": name[:120], "share": time / span, "ms_per_step": time / 1000 / _PROFILED}
                for name, time in totals.most_common(_TOP)
            ],
        }


def _busy(kernels: Iterable[FunctionEvent]) -> tuple[float, float]:
    """Returns for how many microseconds at least one kernel ran, and from the first begin to the last end."""
    busy, first, last = 0.0, None, 0.0
    for begin, end in sorted((event.time_range.start, event.time_range.end) for event in kernels):
        first = begin if first is None else first
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return busy, last - (first or 0.0)
