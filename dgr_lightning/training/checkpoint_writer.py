"""Writes a rank's part of a distributed checkpoint as safetensors, without keeping other Python threads waiting.

torch's own `HuggingFaceStorageWriter` assembles every file in memory by `safetensors.torch.save`, which holds Python's lock:
the thread that trains waits. `save_file` writes the same bytes from the tensors themselves, and holds no lock meanwhile.
torch's `HuggingFaceStorageReader` reads the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint import SavePlan, SavePlanner, StorageWriter
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, FORMAT_KEY, FORMAT_VALUE, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future


class SafetensorsWriter(StorageWriter):
    """What `torch.distributed.checkpoint.save` writes through: every rank writes its shards into files of its own."""

    def __init__(self, folder: Path, rank: int, file_numbers: Mapping[str, int]) -> None:
        """Takes where the files go.

        Args:
            folder: an existing one, the same on all ranks.
            rank: this process.
            file_numbers: for each tensor the number of the file that a rank writes it to.
        """
        self._folder, self._rank, self._file_numbers = folder, rank, file_numbers

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes the shards that this rank has to write, and waits until they are on the disk."""
        files: dict[int, dict[str, tuple[Tensor, list[int]]]] = {}
        results = []
        for item in plan.items:
            assert item.tensor_data is not None, "a checkpoint holds nothing but tensors"
            tensor, name = planner.resolve_data(item), item.index.fqn
            assert isinstance(tensor, Tensor)
            files.setdefault(self._file_numbers[name], {})[name] = (tensor, list(item.tensor_data.chunk.offsets))
            results.append(WriteResult(item.index, tensor.nbytes, None))
        for number, shards in files.items():
            write_shards(self._folder / f"rank-{self._rank:05}-{number:05}.safetensors", shards)
        written: Future[list[WriteResult]] = Future()
        written.set_result(results)
        return written

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing is to be set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Returns the plan of this rank as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Returns the plans of all ranks as they are."""
        return plans

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes nothing more: every file says which part of its tensors it holds."""

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Keeps nothing from one checkpoint to the next."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Takes any folder."""
        return True


def write_shards(file: Path, shards: Mapping[str, tuple[Tensor, list[int]]]) -> None:
    """Writes shards of tensors to a safetensors file and waits until it is on the disk.

    Args:
        file: its path.
        shards: by the name of the tensor: the shard, on any device, and where it begins in each dimension of the whole tensor.
    """
    from safetensors.torch import save_file

    parts = {name: {SAVED_OFFSETS_KEY: offsets} for name, (_, offsets) in shards.items()}
    metadata = {CUSTOM_METADATA_KEY: json.dumps(parts), FORMAT_KEY: FORMAT_VALUE}
    save_file({name: shard.cpu().contiguous() for name, (shard, _) in shards.items()}, file, metadata)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
