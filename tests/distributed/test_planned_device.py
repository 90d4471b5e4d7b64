"""The device that a plan counts with."""

import pytest
import torch

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed.planned_device import PlannedDevice
from dgr_lightning.errors import UserError


def device(memory_gib: float | None = None, **trainer) -> str | None:
    planned = PlannedDevice.of(TrainerConfig(device_memory_gib=memory_gib, **trainer))
    return planned and planned.device.name


def test_the_named_one_counts_whatever_is_here() -> None:
    assert device(device_name="h100") == "H100 SXM" and device(80, device_name="A100 40GB") == "A100 40GB"
    with pytest.raises(UserError, match="no device 'h900'"):
        device(device_name="h900")
    assert device(accelerator="cpu", device_name="h100") is None


def test_the_one_that_is_here_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200")
    assert device(80) == "H200"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Something New")
    assert device() is None


@pytest.mark.parametrize(("memory", "name"), [(80, "H100 SXM"), (79.6, "H100 SXM"), (141, "H200"), (24, "L4"), (48, "L40S")])
def test_without_either_a_common_one_of_about_that_memory_stands_in_and_says_so(
    monkeypatch: pytest.MonkeyPatch, memory: float, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() is None
    planned = PlannedDevice.of(TrainerConfig(accelerator="cuda", device_memory_gib=memory))
    assert planned is not None and planned.device.name == name
    assert planned.why == f"stands for a device of {memory:g} GiB; trainer.device_name names another"
