"""Checkpoints to resume from: a folder of safetensors and a JSON file, readable on any number of ranks.

torch's distributed checkpoints, stored as safetensors: every rank writes what it holds, and a training that goes on with other
shards, or with none, reads the slices that it needs. Nothing in them is ever unpickled. A checkpoint is copied to memory at
once and written while training goes on; it takes its name when all of it is on the disk, and what a crash leaves half-written
has another name and is deleted by the next run.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.files import PARTIAL, partial_of, put_in_place, read_json, write_json

if TYPE_CHECKING:
    from torch.optim import Optimizer

_STATE = "state.json"
_FILE_BYTES = 2**30  # of one rank's part of a checkpoint, when the next file is begun


class Checkpoints:
    """The checkpoints of a run, `step-<optimizer steps>/`: the last few whole ones are kept, and the best one.

    Attributes:
        best: step of the one that is kept whatever its age.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int = 1) -> None:
        """Names the folder, which need not exist; what an earlier process left half-written in it is deleted.

        Args:
            folder: of all checkpoints of a run, the same on every rank.
            ranks: this process.
            keep: how many are kept.
        """
        self._folder, self._ranks, self._keep = folder, ranks, keep
        self.best: int | None = None
        self._naming = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[None] | None = None
        self._group: Any = None
        if ranks.is_first:
            for leftover in folder.glob(f"*{PARTIAL}"):
                shutil.rmtree(leftover)

    def steps(self) -> list[int]:
        """Returns the steps of all whole checkpoints, in order."""
        names = [re.fullmatch(r"step-(\d+)", path.name) for path in self._folder.glob("*")]
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self._folder / f"step-{step:08d}"

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Takes a checkpoint. It is whole after `wait`, or by itself some time later. Collective.

        Args:
            step: optimizer steps done.
            model: its trained weights are taken, sharded or not.
            optimizer: its state is taken.
            state: what else there is to know, JSON-able.
        """
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import HuggingFaceStorageWriter

        self.wait()
        tensors, numbers = _contents(model, optimizer)
        partial = partial_of(self.path(step))
        if self._ranks.is_first:
            write_json(partial / _STATE, {"state": state, "optimizer": numbers})
        if self._ranks.size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")  # of its own: it talks while training does
        self._ranks.broadcast(None)  # the folder is there
        # A file is put together in memory before it is written, and other threads wait for that.
        files = _files(tensors, self._ranks.size)
        writer = HuggingFaceStorageWriter(str(partial), fqn_to_index_mapping=files, save_distributed=True)
        written = dcp.async_save(tensors, storage_writer=writer, process_group=self._group, no_dist=self._ranks.size == 1)
        assert not isinstance(written, dcp.state_dict_saver.AsyncSaveResponse)
        self._pending = self._naming.submit(self._name, step, written)

    def wait(self, seconds: float | None = None) -> None:
        """Waits until the checkpoint taken last is whole, or gives it up after `seconds`."""
        if self._pending is not None:
            with suppress(TimeoutError) if seconds is not None else nullcontext():
                self._pending.result(seconds)
            self._pending = None

    def load(self, step: int, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Puts a checkpoint's weights and optimizer state in place, whatever the ranks that wrote it. Collective.

        Returns:
            The `state` that it was saved with.
        """
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import HuggingFaceStorageReader

        if not optimizer.state:
            _give_state(optimizer)
        tensors, _ = _contents(model, optimizer)
        # In place: these are the weights and the optimizer's own tensors.
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(self.path(step))), no_dist=self._ranks.size == 1)
        stored = read_json(self.path(step) / _STATE)
        for name, weight in trained(model):
            optimizer.state[weight].update(stored["optimizer"].get(name, {}))
            for key, value in optimizer.state[weight].items():
                if isinstance(value, Tensor) and _packed(value) is not None:
                    value.copy_(tensors[f"optimizer.{name}.{key}"])
        return dict(stored["state"])

    def _name(self, step: int, written: Future[Any]) -> None:
        """Gives a checkpoint its name as soon as all ranks have written it; in a thread of its own."""
        written.result()
        if not self._ranks.is_first:
            return
        put_in_place(partial_of(self.path(step)), self.path(step))
        for old in self.steps()[: -self._keep]:
            if old != self.best:
                shutil.rmtree(self.path(old))


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns the weights that training changes, with their names: all that a checkpoint needs beside the base's folder."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _contents(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Returns what a checkpoint holds: tensors, and by weight what the optimizer knows of it besides tensors."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, weight in trained(model):
        tensors[f"model.{name}"] = weight.detach()
        for key, value in optimizer.state[weight].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = _unpacked(value)
            else:
                numbers.setdefault(name, {})[key] = value
    return tensors, numbers


def _files(tensors: dict[str, Tensor], num_ranks: int) -> dict[str, int]:
    """Returns for each tensor in which of its files a rank writes it, counted from 1."""
    files, written = {}, 0
    for name, tensor in tensors.items():
        files[name] = 1 + written // _FILE_BYTES
        written += tensor.nbytes // num_ranks
    return files


def _packed(value: Tensor) -> Tensor | None:
    """Returns this rank's part of a state in torchao's 8 bits (blocks of codes, each with a scale); None of any other."""
    local = value.to_local() if isinstance(value, DTensor) else value
    return local if is_traceable_wrapper_subclass(local) else None


def _unpacked(value: Tensor) -> Tensor:
    """Returns a state as numbers, which any number of ranks can read: what blocks there are depends on the shards.

    Torchao's 8-bit states become the fp32 numbers that they stand for; who reads them rounds them to 8 bits once more.
    """
    packed = _packed(value)
    if packed is None:
        return value
    plain = packed.dequantize()
    if isinstance(value, DTensor):
        mesh, shape, stride = value.device_mesh, value.shape, value.stride()
        plain = DTensor.from_local(plain, mesh, value.placements, run_check=False, shape=shape, stride=stride)
    return plain


def _give_state(optimizer: Optimizer) -> None:
    """Has an optimizer make the state that it would make in its first step, and change nothing else."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
