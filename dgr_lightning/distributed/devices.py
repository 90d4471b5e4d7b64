"""Which device, how many of them, and which precision: `auto` becomes a value that this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed import torchrun
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    pass


# --- The machine ----------------------------------------------------------------------------------------------------------


def resolve_device(accelerator: str) -> str:
    """Returns `cpu` or `cuda`; `auto` takes a CUDA device where there is one.

    Raises:
        UserError: `cuda` is asked for and there is none.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda: PyTorch finds no CUDA device here. Set trainer.accelerator=auto or cpu.")
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def resolve_devices(trainer: TrainerConfig) -> None:
    """Turns `trainer.devices=null` and `trainer.strategy=auto` into values, in place.

    Raises:
        UserError: more devices are asked for than there are.
    """
    if torchrun.is_active():
        started = torchrun.size()
        for key, asked, found in (("devices", trainer.devices, started[0]), ("nodes", trainer.nodes, started[1])):
            if asked not in (None, 1, found):
                raise UserError(f"trainer.{key}={asked}: torchrun started {found}; leave it to torchrun.")
        trainer.devices, trainer.nodes = started
    there = torch.cuda.device_count() if trainer.accelerator == "cuda" else 1
    if trainer.devices is None:
        trainer.devices = 1 if trainer.strategy == "single" else there
    if trainer.accelerator == "cuda" and trainer.devices > there:
        raise UserError(f"trainer.devices={trainer.devices}: PyTorch finds {there} CUDA devices here.")
    if trainer.strategy == "auto":
        trainer.strategy = "fsdp" if trainer.devices * trainer.nodes > 1 else "single"


def resolve_precision(value: str, device: str) -> str:
    """Returns `bf16` or `fp32`; `auto` takes bf16 where the device multiplies in it, not where it is emulated.

    On a CPU that is AVX512-BF16 or AMX (a 1024³ product took 15 ms there against 48 ms in fp32); without them, bf16 is the
    slower of the two.
    """
    if value != "auto":
        return value
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if native else "fp32"
