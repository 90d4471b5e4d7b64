"""The bytes that a training step really takes on the CPU, by what torch's allocator reports to its profiler."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile

from dgr_lightning.config import Config
from dgr_lightning.distributed import fsdp
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.models.chat import Encoded
from dgr_lightning.training import tuning
from dgr_lightning.training.packing import collate, num_targets
from dgr_lightning.training.sft import SafetySft


@dataclass(frozen=True)
class Measured:
    """Bytes of one step: `weights` and `states` for good, `passes` and `step` as peaks that include them."""

    weights: int
    states: int
    passes: int
    step: int


def documents(lengths: list[int]) -> list[Encoded]:
    """Documents of these lengths, a quarter of each its prompt."""
    return [Encoded([2] * length, length // 4) for length in lengths]


def measure(folder: Path, cfg: Config, lengths: list[int], recompute_every: int = 0) -> Measured:
    """Makes two steps of one row; the second, which finds the optimizer's states, is measured. Collective with fsdp."""
    trainer, ranks, shard = cfg.trainer, Ranks.here(), None
    if trainer.strategy == "fsdp":
        model = tuning.empty(folder, cfg.tuning, trainer.precision)

        def shard(model) -> None:
            fsdp.shard(model, folder, trainer, trainer.precision, torch.device("cpu"))
    else:
        model = tuning.load(folder, cfg.tuning, trainer.precision, "cpu", 0)
    fsdp.recompute(model, recompute_every)
    module: Any = SafetySft(model, cfg.sft, 2, trainer.precision, ranks, shard)
    module.configure_model()
    module.manual_backward = torch.Tensor.backward
    optimizer = module.configure_optimizers()
    row = documents(lengths)
    batch: Any = {"rows": [collate(row)], "denominator": sum(map(num_targets, row))}

    def passes() -> None:
        module._accumulate_gradients(batch)
        fsdp.clip_gradients(model, 1.0)

    def step() -> None:
        optimizer.step()

    passes()
    step()
    optimizer.zero_grad(set_to_none=True)
    weights = _bytes(_tensors_of_weights(model))
    states = _bytes([value for state in optimizer.state.values() for value in state.values()])
    forward = weights + states + peak(passes)
    gradients = _bytes([weight.grad for weight in model.parameters() if weight.grad is not None])
    return Measured(weights, states, forward, weights + states + gradients + peak(step))


def _tensors_of_weights(model) -> list[Any]:
    """Weights, and what stands beside packed ones."""
    tensors: list[Any] = list(model.parameters())
    for weight in model.parameters():
        if (state := getattr(weight, "quant_state", None)) is not None:
            tensors += [state.absmax, state.state2.absmax]
    return tensors


def _bytes(tensors: list[Any]) -> int:
    plain = [one.detach() for one in tensors if isinstance(one, torch.Tensor)]
    storages = [(one.to_local() if isinstance(one, DTensor) else one).untyped_storage() for one in plain]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def peak(work: Callable[[], None]) -> int:
    """The most bytes that are allocated at once while `work` runs, above those before it."""
    gc.collect()  # what dies later would be taken off the peak
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    highest = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest
