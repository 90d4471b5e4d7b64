"""What all parts share: where they run, their clock, and cases that may fail one by one."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from dgr_lightning.errors import one_line
from dgr_lightning.training.flops import peak_memory_bytes

Line = dict[str, Any]
"""Figures by name, as JSON; what cannot be measured on the device is null."""


@dataclass(frozen=True)
class Setup:
    """Where a part runs.

    Attributes:
        dry: whether on the CPU, at tiny sizes.
        folder: an empty one for its files.
    """

    dry: bool
    folder: Path

    @property
    def accelerator(self) -> str:
        """`trainer.accelerator`."""
        return "cpu" if self.dry else "cuda"

    @property
    def device(self) -> torch.device:
        """The device that everything is computed on."""
        return torch.device("cpu") if self.dry else torch.device("cuda", 0)

    @property
    def memory_bytes(self) -> int | None:
        """The memory of the GPU."""
        return None if self.dry else torch.cuda.get_device_properties(0).total_memory


def synchronize() -> None:
    """Waits for the GPU if there is one in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def milliseconds(function: Callable[[], object], times: int = 5) -> float:
    """Returns the median duration of a call, after two that do not count."""
    durations = []
    for _ in range(2 + times):
        synchronize()
        start = perf_counter()
        function()
        synchronize()
        durations.append(1000 * (perf_counter() - start))
    return statistics.median(durations[2:])


def bytes_on_top(function: Callable[[], object], device: torch.device) -> int:
    """Returns by how much a call exceeds the memory before it: on a GPU what torch allocates, on the CPU the process' peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = peak_memory_bytes(device)
    function()
    return peak_memory_bytes(device) - before


def each(cases: Mapping[str, Callable[[], Line]]) -> Iterator[Line]:
    """Yields a line a case; one that raises yields its error, and the others go on."""
    for name, case in cases.items():
        try:
            yield {"case": name} | case()
        except Exception as error:
            yield {"case": name, "error": f"{type(error).__name__}: {one_line(error, 300)}"}
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the norm of the difference over the norm of what is expected."""
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()
