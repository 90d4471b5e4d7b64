"""Checkpoints to resume from: a folder of safetensors and a JSON file, readable on any number of ranks.

They are torch's distributed checkpoints, stored as safetensors: every rank writes its own shards, and a training that resumes
with other shards, or with none, reads the slices that it needs. Nothing in them is ever unpickled. A checkpoint is copied to
host memory and written while training continues. It is renamed to its final name once all of it is on disk; what a crash leaves
half-written keeps a temporary name and is deleted by the next run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.files import PARTIAL, deleted_on_failure, partial_of, put_in_place, read_json, write_json
from dgr_lightning.writing import writing

if TYPE_CHECKING:
    from torch.optim import Optimizer

_STATE = "state.json"
_FILE_BYTES = 2**30  # of a rank's tensors that go into one file


class Checkpoints:
    """The checkpoints of a run, `step-<optimizer steps>/`: the latest few are kept, and the best one.

    Attributes:
        ranks: this process among the ranks.
        best: step of the checkpoint that is kept whatever its age.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int = 1) -> None:
        """Takes the folder, which need not exist, and deletes half-written checkpoints of an earlier process from it.

        Args:
            folder: of all checkpoints of a run, the same on every rank.
            ranks: this process among the ranks.
            keep: how many of the latest are kept.
        """
        self.ranks = ranks
        self._folder, self._keep = folder, keep
        self.best: int | None = None
        self._publisher = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[None] | None = None
        self._group: Any = None
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: a file, where checkpoints go. Delete it, or move it away.")
        if ranks.is_first:
            for leftover in folder.glob(f"*{PARTIAL}"):
                shutil.rmtree(leftover)

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        names = [re.fullmatch(r"step-(\d+)", path.name) for path in self._folder.glob("*")]
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self._folder / f"step-{step:08d}"

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Takes a checkpoint, which is complete some time later, at the latest after `wait`. Collective.

        Args:
            step: optimizer steps done.
            model: its trained weights are saved, sharded or not.
            optimizer: its states are saved.
            state: anything else to restore, as JSON.

        Raises:
            CannotWrite: there was no room for the checkpoint before, or there is none for this one.
        """
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import HuggingFaceStorageWriter

        self.wait()
        tensors, numbers = _tensors_and_numbers(model, optimizer)
        partial = partial_of(self.path(step))
        if self.ranks.is_first:
            with deleted_on_failure(partial):
                write_json(partial / _STATE, {"state": state, "optimizer": numbers})
        if self.ranks.size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")  # a separate group, since it communicates while training does
        self.ranks.broadcast(None)  # all ranks wait until the folder exists
        # Several files: each is assembled in memory before it is written, which blocks other threads.
        files = _file_numbers(tensors, self.ranks.size)
        writer = HuggingFaceStorageWriter(str(partial), fqn_to_index_mapping=files, save_distributed=True)
        with _error_of_a_rank():
            written = dcp.async_save(tensors, storage_writer=writer, process_group=self._group, no_dist=self.ranks.size == 1)
        assert not isinstance(written, dcp.state_dict_saver.AsyncSaveResponse)
        self._pending = self._publisher.submit(self._publish, step, written)

    @property
    def is_pending(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._pending is not None and not self._pending.done()

    def wait(self, seconds: float | None = None) -> None:
        """Waits until the latest checkpoint is complete, or gives up after `seconds`.

        Raises:
            CannotWrite: there is no room for it.
        """
        pending, self._pending = self._pending, None  # what it raises is raised once
        if pending is not None:
            with suppress(TimeoutError) if seconds is not None else nullcontext():
                pending.result(seconds)

    def load(self, step: int, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Restores a checkpoint's weights and optimizer states, whatever the number of ranks that wrote it. Collective.

        Returns:
            The `state` that was saved with it.

        Raises:
            UserError: something has damaged it.
        """
        if not optimizer.state:
            _initialize_states(optimizer)
        tensors, _ = _tensors_and_numbers(model, optimizer)
        stored = self._read(step, tensors)
        for name, weight in trained_parameters(model):
            optimizer.state[weight].update(stored["optimizer"].get(name, {}))
            for key, value in optimizer.state[weight].items():
                if isinstance(value, Tensor) and _local_8bit(value) is not None:
                    value.copy_(tensors[f"optimizer.{name}.{key}"])
        return dict(stored["state"])

    def _read(self, step: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Fills tensors with what a checkpoint holds of them, in place, and returns its JSON."""
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import HuggingFaceStorageReader

        folder = self.path(step)
        try:
            with _error_of_a_rank():
                dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=self.ranks.size == 1)
            stored: dict[str, Any] = read_json(folder / _STATE, "state", "optimizer")
        except torch.OutOfMemoryError:
            raise
        except (UserError, OSError, ValueError, LookupError, AssertionError, RuntimeError) as error:
            raise UserError(
                f"{folder}: damaged ({one_line(error, 200)}). Delete that folder; the same command continues from the "
                "checkpoint before it, or begins training anew."
            ) from error
        return stored

    def _publish(self, step: int, written: Future[Any]) -> None:
        """Renames a checkpoint once all ranks have written it, and deletes old ones; runs in a thread."""
        partial = partial_of(self.path(step))
        with writing(self.path(step)), deleted_on_failure(partial) if self.ranks.is_first else nullcontext():
            with _error_of_a_rank():
                written.result()
            if not self.ranks.is_first:
                return
            put_in_place(partial, self.path(step))
        for old in self.steps()[: -self._keep]:
            if old != self.best:
                shutil.rmtree(self.path(old))


@contextmanager
def _error_of_a_rank() -> Iterator[None]:
    """Raises what a rank raised instead of torch's exception about it, which is not an Exception and quotes tracebacks."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as failed:
        (error, _), *_ = failed.failures.values()
        raise error from failed


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns the weights that training changes, with their names; all others are in the base model's folder."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _tensors_and_numbers(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Returns the contents of a checkpoint: tensors by name, and by weight those states of the optimizer that are numbers."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, weight in trained_parameters(model):
        tensors[f"model.{name}"] = weight.detach()
        for key, value in optimizer.state[weight].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = _dequantized(value)
            else:
                numbers.setdefault(name, {})[key] = value
    return tensors, numbers


def _file_numbers(tensors: dict[str, Tensor], num_ranks: int) -> dict[str, int]:
    """Returns for each tensor the number of the file that a rank writes it to, counted from 1."""
    files, written = {}, 0
    for name, tensor in tensors.items():
        files[name] = 1 + written // _FILE_BYTES
        written += tensor.nbytes // num_ranks
    return files


def _local_8bit(value: Tensor) -> Tensor | None:
    """Returns this rank's shard of a state in torchao's 8 bits (blocks of codes, each with a scale); None for other states."""
    local = value.to_local() if isinstance(value, DTensor) else value
    return local if is_traceable_wrapper_subclass(local) else None


def _dequantized(value: Tensor) -> Tensor:
    """Returns a state that any number of ranks can read: torchao's 8-bit states as fp32, all others unchanged.

    The blocks of 8-bit states depend on the shards, so they are stored as the numbers that they stand for and rounded to 8 bits
    again when they are loaded.
    """
    quantized = _local_8bit(value)
    if quantized is None:
        return value
    plain = quantized.dequantize()
    if isinstance(value, DTensor):
        mesh, shape, stride = value.device_mesh, value.shape, value.stride()
        plain = DTensor.from_local(plain, mesh, value.placements, run_check=False, shape=shape, stride=stride)
    return plain


def _initialize_states(optimizer: Optimizer) -> None:
    """Makes an optimizer create the states of its first step, by a step with a learning rate and gradients of zero."""
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
        group["lr"] = learning_rate
