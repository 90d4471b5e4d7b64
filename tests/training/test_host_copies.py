"""Copies in host memory: what was there when they were taken, in memory that is allocated once."""

from pathlib import Path

import pytest
import torch

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training import host_copies
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.host_copies import HostCopies
from tests.training.test_checkpoints import step, trained

ODD = {
    "scalar": torch.tensor(3.5),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "half": torch.randn(3, 5).bfloat16(),
    "transposed": torch.randn(4, 6).T,
    "empty": torch.empty(0, 4),
    "numbers": torch.arange(5),
}


def test_a_copy_is_what_was_there_whatever_is_written_into_the_tensor_afterwards() -> None:
    sources = {name: tensor.clone() for name, tensor in ODD.items()}
    copies = HostCopies().take(sources)
    for tensor in sources.values():
        tensor.zero_()
    assert copies.keys() == ODD.keys()
    assert all(copies[name].dtype == ODD[name].dtype and torch.equal(copies[name], ODD[name]) for name in ODD)


def test_the_second_checkpoint_allocates_no_host_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated: list[int] = []
    allocate = host_copies._allocate
    monkeypatch.setattr(host_copies, "_allocate", lambda size, **how: allocated.append(size) or allocate(size, **how))
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, Ranks())
    for number in (1, 2, 3):
        checkpoints.save(number, model, optimizer, {})
        step(model, optimizer)
    checkpoints.wait()
    assert len(allocated) == 1
    tensors = [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
    assert sum(tensor.nbytes for tensor in tensors) <= allocated[0] <= sum(tensor.nbytes + 64 for tensor in tensors)


def test_what_nothing_changes_any_more_is_written_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_copies, "_allocate", lambda *_, **__: pytest.fail("memory for a copy"))
    model, optimizer = trained(2)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(2, model, optimizer, {}, copied=False)
    checkpoints.wait()
    other, fresh = trained(0)
    Checkpoints(tmp_path, Ranks()).load(2, other, fresh)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
