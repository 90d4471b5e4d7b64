"""The device and the precision that `auto` stands for."""

import pytest
import torch

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed.devices import resolve_device, resolve_devices, resolve_precision
from dgr_lightning.errors import UserError


def test_device_and_precision_become_values(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(UserError, match=r"trainer\.accelerator=cuda: .* no CUDA device"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"
    for supported, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, answer=supported: answer)
        assert resolve_precision("auto", "cuda") == precision
        for name in ("avx512_bf16", "amx_bf16"):
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name, answer=supported: {"avx2": True, name: answer})
            assert resolve_precision("auto", "cpu") == precision
    assert [resolve_precision(value, "cpu") for value in ("bf16", "fp32")] == ["bf16", "fp32"]


def test_other_numbers_than_torchrun_started_are_refused(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^trainer\.nodes=3: torchrun started 2; leave it to torchrun\.$"):
        resolve_devices(TrainerConfig(accelerator="cpu", nodes=3))
    resolve_devices(trainer := TrainerConfig(accelerator="cpu", nodes=2))
    assert (trainer.devices, trainer.nodes) == (1, 2)
