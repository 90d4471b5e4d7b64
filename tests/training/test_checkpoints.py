"""Checkpoints: whole or not there, what they were when they were taken, and nothing in them that is unpickled."""

from concurrent.futures import wait
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.writing import CannotWrite
from tests.helpers.full_disks import files_no_larger_than


def trained(steps: int, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3, bias=False))
    made = optimizer(model.parameters(), lr=0.01, weight_decay=0.5)
    for _ in range(steps):
        step(model, made)
    return model, made


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.arange(14.0).view(2, 7)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def values(model: nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def test_it_holds_what_was_there_when_it_was_taken(tmp_path: Path) -> None:
    """It is written while training goes on, and training writes into the same tensors."""
    model, optimizer = trained(2)
    before = values(model)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(2, model, optimizer, {"seconds": 1.5})
    step(model, optimizer)
    after = values(model)
    checkpoints.wait()
    assert checkpoints.load(2, model, optimizer) == {"seconds": 1.5}
    assert all(map(torch.equal, values(model), before))
    step(model, optimizer)
    assert all(map(torch.equal, values(model), after))


def test_what_is_large_lies_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgr_lightning.training.checkpoints._FILE_BYTES", 200)
    model, optimizer = trained(2)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(2, model, optimizer, {})
    checkpoints.wait()
    sizes = [file.stat().st_size for file in checkpoints.path(2).glob("*.safetensors")]
    assert len(sizes) > 2
    other, fresh = trained(0)
    Checkpoints(tmp_path, Ranks()).load(2, other, fresh)
    for pair in ((model, optimizer), (other, fresh)):
        step(*pair)
    assert all(map(torch.equal, values(model), values(other)))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_that_made_no_step_takes_up_another_ones_state(
    tmp_path: Path, optimizer: type[torch.optim.Optimizer]
) -> None:
    model, made = trained(3, optimizer)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(3, model, made, {})
    checkpoints.wait()
    other, fresh = trained(0, optimizer)
    Checkpoints(tmp_path, Ranks()).load(3, other, fresh)
    assert [group["lr"] for group in fresh.param_groups] == [0.01]
    for pair in ((model, made), (other, fresh)):
        step(*pair)
    assert all(map(torch.equal, values(model), values(other)))


def test_the_last_few_are_kept_and_what_is_half_written_is_deleted(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, Ranks(), keep=2)
    for number in (1, 2, 3):
        checkpoints.save(number, model, optimizer, {})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    (tmp_path / "step-00000004.partial").mkdir()
    assert Checkpoints(tmp_path, Ranks()).steps() == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_frozen_weights_are_left_out_and_nothing_is_a_pickle(tmp_path: Path) -> None:
    from safetensors import safe_open

    model, optimizer = trained(0)
    model[0].requires_grad_(False)
    step(model, optimizer)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(1, model, optimizer, {})
    checkpoints.wait()
    files = sorted(path.name for path in checkpoints.path(1).iterdir())
    assert [Path(name).suffix for name in files] == [".safetensors", ".json"]
    with safe_open(checkpoints.path(1) / files[0], framework="pt") as file:
        names = {name.removeprefix("optimizer.1.weight.") for name in file.keys()}  # noqa: SIM118 (no mapping)
    assert names == {"model.1.weight", "step", "exp_avg", "exp_avg_sq"}


def test_without_room_it_is_said_once_and_the_one_before_is_kept(tmp_path: Path) -> None:
    """torch's own exception is none that `except Exception` catches, and quotes its tracebacks."""
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(1, model, optimizer, {})
    checkpoints.wait()
    with files_no_larger_than(500):
        checkpoints.save(2, model, optimizer, {})
        with pytest.raises(CannotWrite, match=f"{checkpoints.path(2)} could not be written: no file may become larger"):
            checkpoints.wait()
        checkpoints.wait()
    with files_no_larger_than(10), pytest.raises(CannotWrite):
        checkpoints.save(3, model, optimizer, {"text": "x" * 100})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.load(1, model, optimizer) == {}


def test_that_it_failed_is_said_by_the_next_check_and_not_only_by_the_next_checkpoint(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.check()
    with files_no_larger_than(500):
        checkpoints.save(1, model, optimizer, {})
        wait([checkpoints._pending])
        with pytest.raises(CannotWrite, match=f"{checkpoints.path(1)} could not be written: no file may become larger"):
            checkpoints.check()
    checkpoints.check()


def test_the_one_of_the_end_holds_weights_alone(tmp_path: Path) -> None:
    model, _ = trained(3)
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(3, model, None, {"steps": 3}, copied=False)
    checkpoints.wait()
    stored = [name for file in checkpoints.path(3).glob("*.safetensors") for name in load_file(file)]
    assert sorted(stored) == ["model.0.bias", "model.0.weight", "model.1.weight"]
    other, fresh = trained(1)
    before = dict(fresh.state)
    assert checkpoints.load(3, other, fresh) == {"steps": 3} and fresh.state == before
    assert all(map(torch.equal, values(model), values(other)))
