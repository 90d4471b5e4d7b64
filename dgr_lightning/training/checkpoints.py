"""Checkpoints to resume from: a folder of safetensors and a JSON file, readable on any number of ranks.

They are torch's distributed checkpoints, stored as safetensors: every rank writes its own shards, and a training that resumes
with other shards, or with none, reads the slices that it needs. Nothing in them is ever unpickled. A checkpoint is copied to
host memory and written while training continues. It is renamed to its final name once all of it is on disk; what a crash leaves
half-written keeps a temporary name and is deleted by the next run. The one at the end of a training holds no optimizer states,
unless they are to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dgr_lightning.distributed.ranks import Ranks, long_wait_group
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.files import deleted_on_failure, partial_of, put_in_place, read_json, write_json
from dgr_lightning.training.checkpoint_folder import CheckpointFolder
from dgr_lightning.training.checkpoint_writer import SafetensorsWriter
from dgr_lightning.training.host_copies import HostCopies
from dgr_lightning.writing import writing

if TYPE_CHECKING:
    from torch.optim import Optimizer

_STATE = "state.json"
_FILE_BYTES = 2**30  # of a rank's tensors that go into one file; those of a file pass through host memory together


class Checkpoints:
    """The checkpoints of a run, `step-<optimizer steps>/`: the latest few are kept, and the best one.

    Attributes:
        ranks: this process among the ranks.
        best: step of the checkpoint that is kept whatever its age.
        seconds_to_write: from the beginning of the latest complete one until it was complete; 0 before the first.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int = 1) -> None:
        """Takes the folder, which need not exist, and deletes half-written checkpoints of an earlier process from it.

        Args:
            folder: of all checkpoints of a run, the same on every rank.
            ranks: this process among the ranks.
            keep: how many of the latest are kept.

        Raises:
            UserError: the folder is a file.
        """
        self.ranks = ranks
        self._folder, self._keep = CheckpointFolder(folder), keep
        self.best: int | None = None
        self.seconds_to_write = 0.0
        self._copies = HostCopies()
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[None] | None = None
        self._group: Any = None
        if ranks.is_first:
            self._folder.delete_leftovers()

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        return self._folder.steps()

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self._folder.of(step)

    def save(
        self, step: int, model: nn.Module, optimizer: Optimizer | None, state: dict[str, Any], *, copied: bool = True
    ) -> None:
        """Takes a checkpoint, which is complete some time later, at the latest after `wait`. Collective.

        Args:
            step: optimizer steps done.
            model: its trained weights are saved, sharded or not.
            optimizer: its states are saved; None at the end of a training, where no step follows.
            state: anything else to restore, as JSON.
            copied: tensors are copied to host memory first, so that training goes on; else they must not change until `wait`.

        Raises:
            CannotWrite: there was no room for the checkpoint before, or there is none for this one.
        """
        self.wait()
        start = perf_counter()
        tensors, numbers = _tensors_and_numbers(model, optimizer)
        partial = partial_of(self.path(step))
        if self.ranks.is_first:
            with deleted_on_failure(partial):
                write_json(partial / _STATE, {"state": state, "optimizer": numbers})
        if self.ranks.size > 1 and self._group is None:
            self._group = long_wait_group()  # a separate group, since it communicates while training does
        self.ranks.broadcast(None)  # all ranks wait until the folder exists
        writer = SafetensorsWriter(partial, self.ranks.rank, _file_numbers(tensors, self.ranks.size))
        if copied:
            tensors = self._copies.take(tensors)
        else:
            self._copies.free()
        self._pending = self._writer.submit(self._write, step, tensors, writer, start)

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

    def check(self) -> None:
        """Raises what `wait` would raise, if writing the latest checkpoint has failed by now; costs nothing."""
        if not self.is_pending:
            self.wait()

    def load(self, step: int, model: nn.Module, optimizer: Optimizer | None) -> dict[str, Any]:
        """Restores a checkpoint's weights and optimizer states, whatever the number of ranks that wrote it. Collective.

        Args:
            step: of the checkpoint.
            model: its trained weights are overwritten.
            optimizer: likewise its states, unless the checkpoint was taken without them; None for the weights alone.

        Returns:
            The `state` that was saved with it.

        Raises:
            UserError: something has damaged it.
        """
        with self._damaged(step):
            stored: dict[str, Any] = read_json(self.path(step) / _STATE, "state", "optimizer")
        numbers: dict[str, dict[str, Any]] | None = stored["optimizer"]
        if numbers is None:
            optimizer = None
        if optimizer is not None and not optimizer.state:
            _initialize_states(optimizer)
        tensors, _ = _tensors_and_numbers(model, optimizer)
        with self._damaged(step), _error_of_a_rank():
            reader = HuggingFaceStorageReader(str(self.path(step)))
            dcp.load(tensors, storage_reader=reader, no_dist=self.ranks.size == 1)
        if optimizer is not None and numbers is not None:
            for name, weight in trained_parameters(model):
                optimizer.state[weight].update(numbers.get(name, {}))
                for key, value in optimizer.state[weight].items():
                    if isinstance(value, Tensor) and _local_8bit(value) is not None:
                        value.copy_(tensors[f"optimizer.{name}.{key}"])
        return dict(stored["state"])

    @contextmanager
    def _damaged(self, step: int) -> Iterator[None]:
        """Turns an error of reading a checkpoint into one that says which and what to do; memory that runs out is none."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (UserError, OSError, ValueError, LookupError, AssertionError, RuntimeError) as error:
            raise UserError(
                f"{self.path(step)}: damaged ({one_line(error, 200)}). Delete that folder; the same command continues from the "
                "checkpoint before it, or begins training anew."
            ) from error

    def _write(self, step: int, tensors: dict[str, Tensor], writer: SafetensorsWriter, start: float) -> None:
        """Writes a checkpoint, renames it once all ranks have written it, and deletes old ones; runs in a thread."""
        partial = partial_of(self.path(step))
        with writing(self.path(step)), deleted_on_failure(partial) if self.ranks.is_first else nullcontext():
            with _error_of_a_rank():
                dcp.save(tensors, storage_writer=writer, process_group=self._group, no_dist=self.ranks.size == 1)
            if self.ranks.is_first:
                put_in_place(partial, self.path(step))
        if self.ranks.is_first:
            for old in self.steps()[: -self._keep]:
                if old != self.best:
                    self._folder.delete(old)
        self.seconds_to_write = perf_counter() - start


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


def _tensors_and_numbers(
    model: nn.Module, optimizer: Optimizer | None
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]] | None]:
    """Returns the contents of a checkpoint: tensors by name, and by weight those states of the optimizer that are numbers.

    Without an optimizer there are none of its states, and None for the numbers.
    """
    tensors = {f"model.{name}": weight.detach() for name, weight in trained_parameters(model)}
    if optimizer is None:
        return tensors, None
    numbers: dict[str, dict[str, Any]] = {}
    for name, weight in trained_parameters(model):
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
