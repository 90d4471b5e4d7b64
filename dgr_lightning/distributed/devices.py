"""Resolves `auto` for the accelerator, the number of devices, the precision and the compiler to values of this machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from dgr_lightning.config import TrainerConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.distributed import device_table, torchrun
from dgr_lightning.errors import UserError


def resolve_device(accelerator: str) -> str:
    """Returns `cpu` or `cuda`; `auto` is `cuda` if there is a CUDA device.

    Raises:
        UserError: `cuda`, and there is no CUDA device.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda: PyTorch finds no CUDA device here. Set trainer.accelerator=auto or cpu.")
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def resolve_devices(trainer: TrainerConfig) -> None:
    """Resolves `trainer.devices=null`, in place.

    Raises:
        UserError: more devices than this machine has, or other numbers than torchrun started.
    """
    if torchrun.is_active():
        started = torchrun.size()
        for key, asked, found in (("devices", trainer.devices, started[0]), ("nodes", trainer.nodes, started[1])):
            if asked not in (None, 1, found):
                raise UserError(f"trainer.{key}={asked}: torchrun started {found}; leave it to torchrun.")
        trainer.devices, trainer.nodes = started
    available = torch.cuda.device_count() if trainer.accelerator == "cuda" else 1
    if trainer.devices is None:
        trainer.devices = 1 if trainer.strategy == "single" else available
    if trainer.accelerator == "cuda" and trainer.devices > available:
        raise UserError(f"trainer.devices={trainer.devices}: PyTorch finds {available} CUDA devices here.")


def planned(trainer: TrainerConfig) -> TrainerConfig:
    """Returns the section as it would be resolved on the machine that it describes, which need not be this one.

    `strategy=auto` is left as it is.
    """
    if trainer.device_name is not None and trainer.accelerator != "cpu":
        memory = trainer.device_memory_gib or device_table.named(trainer.device_name).memory_gib
        trainer = replace(trainer, accelerator="cuda", device_memory_gib=memory)
    there = replace(trainer, accelerator="cpu")  # for whose devices none has to be found here
    resolve_devices(there)
    if trainer.accelerator == "auto":
        trainer = replace(trainer, accelerator="cuda" if torch.cuda.is_available() else "cpu")
    if trainer.devices is None and trainer.accelerator == "cuda" and torch.cuda.is_available():
        there = replace(trainer)
        resolve_devices(there)
    away = trainer.accelerator == "cuda" and not torch.cuda.is_available()
    precision = "bf16" if away and trainer.precision == "auto" else resolve_precision(trainer.precision, trainer.accelerator)
    return replace(there, accelerator=trainer.accelerator, precision=precision)


def resolve_precision(value: str, device: str) -> str:
    """Returns `bf16` or `fp32`; `auto` is bf16 if the device multiplies in it natively.

    A CPU does so with AVX512-BF16 or AMX (a 1024³ product took 15 ms in bf16 against 48 ms in fp32); without them, bf16 is
    slower than fp32.
    """
    if value != "auto":
        return value
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if native else "fp32"


def resolve_compile(trainer: TrainerConfig, tuning: str, *, planned: bool = False) -> str | None:
    """Resolves `trainer.compile=auto`, in place: to true on a GPU where nothing stands in the way.

    Args:
        trainer: `accelerator` and `tensor_parallel` are values.
        tuning: the method.
        planned: whether the machine may be another one, which is then taken to have what the compiler needs.

    Returns:
        What stands in the way on a GPU.
    """
    if trainer.compile != AUTO:
        return None
    why = None
    if trainer.accelerator == "cuda":
        obstacles = {
            "trainer.tensor_parallel does not go with it": trainer.tensor_parallel > 1,
            "4-bit matrices have a kernel of their own": tuning == "qlora",
        }
        if not planned:
            compilers = (os.environ.get("CC", "cc"), "gcc", "clang")
            obstacles |= {
                "triton is not installed": find_spec("triton") is None,
                "no C compiler for triton's launchers": not any(map(shutil.which, compilers)),
                "no Python.h for triton's launchers": not Path(sysconfig.get_path("include"), "Python.h").exists(),
            }
        why = next((reason for reason, holds in obstacles.items() if holds), None)
    trainer.compile = trainer.accelerator == "cuda" and why is None
    return why
