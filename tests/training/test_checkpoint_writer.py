"""The files of a checkpoint: plain safetensors that also say which part of its tensor each shard is."""

from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from dgr_lightning.training.checkpoint_writer import SafetensorsWriter, write_shards
from tests.training.test_host_copies import ODD


def test_safetensors_reads_every_type_byte_for_byte(tmp_path: Path) -> None:
    write_shards(tmp_path / "a.safetensors", {name: (tensor, [0] * tensor.ndim) for name, tensor in ODD.items()})
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == ODD.keys()
    for name, tensor in ODD.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_shards_in_several_files_are_read_as_the_whole_tensor(tmp_path: Path) -> None:
    whole = torch.arange(20.0).view(5, 4)
    write_shards(tmp_path / "a.safetensors", {"weight": (whole[:3], [0, 0])})
    write_shards(tmp_path / "b.safetensors", {"weight": (whole[3:], [3, 0])})
    read = {"weight": torch.zeros(5, 4)}
    dcp.load(read, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert torch.equal(read["weight"], whole)


def test_it_holds_what_torchs_own_writer_writes(tmp_path: Path) -> None:
    numbers = dict.fromkeys(ODD, 1)
    (tmp_path / "ours").mkdir()
    writers = {
        "ours": SafetensorsWriter(tmp_path / "ours", 0, numbers),
        "torchs": HuggingFaceStorageWriter(str(tmp_path / "torchs"), fqn_to_index_mapping=numbers, save_distributed=True),
    }
    tensors = {name: tensor.contiguous() for name, tensor in ODD.items()}
    for writer in writers.values():
        dcp.save(tensors, storage_writer=writer, no_dist=True)
    ours, torchs = (load_file(next((tmp_path / name).iterdir())) for name in writers)
    assert ours.keys() == torchs.keys() and all(torch.equal(ours[name], torchs[name]) for name in ours)
