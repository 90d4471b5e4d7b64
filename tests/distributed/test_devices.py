"""The device and the precision that `auto` stands for."""

import pytest
import torch

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed import devices
from dgr_lightning.distributed.devices import resolve_compile, resolve_device, resolve_devices, resolve_precision
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


def test_layers_are_compiled_on_a_gpu_where_nothing_stands_in_the_way(monkeypatch):
    there = {"triton": object(), "cc": "/usr/bin/cc"}
    monkeypatch.setattr(devices, "find_spec", there.get)
    monkeypatch.setattr(devices.shutil, "which", there.get)
    monkeypatch.setattr(devices.Path, "exists", lambda path: path.name == "Python.h")
    monkeypatch.delenv("CC", raising=False)

    def resolved(tuning: str = "full", **trainer) -> tuple[bool, str | None]:
        cfg = TrainerConfig(**{"accelerator": "cuda"} | trainer)
        why = resolve_compile(cfg, tuning)
        return cfg.compile, why

    assert resolved() == resolved("lora") == (True, None)
    assert resolved(accelerator="cpu") == (False, None)
    assert resolved(accelerator="cpu", compile=True) == (True, None)
    assert resolved(compile=False) == (False, None)
    assert resolved(tensor_parallel=2) == (False, "trainer.tensor_parallel does not go with it")
    assert resolved("qlora") == (False, "4-bit matrices have a kernel of their own")
    there["cc"] = None
    assert resolved() == (False, "no C compiler for triton's launchers")
    there["triton"] = None
    assert resolved() == (False, "triton is not installed")
