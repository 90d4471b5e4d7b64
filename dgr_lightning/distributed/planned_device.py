"""The device that a plan counts with: the one that is named, the one that is here, or a common one of the stated memory."""

from __future__ import annotations

from dataclasses import dataclass

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed import device_table
from dgr_lightning.distributed.device_table import Device

_STAND_INS = ("L4", "A100 40GB", "L40S", "H100 SXM", "H100 NVL", "H200", "B200")


@dataclass(frozen=True)
class PlannedDevice:
    """A device, and how it became the plan's.

    Attributes:
        device: of the table.
        why: clause for people.
    """

    device: Device
    why: str

    @classmethod
    def of(cls, trainer: TrainerConfig) -> PlannedDevice | None:
        """Returns the device of a config; None for a CPU, and for a GPU of which nothing is known.

        Where a device is not here and has no name, one with about its `device_memory_gib` stands for it.

        Raises:
            UserError: `trainer.device_name` is in no table.
        """
        if trainer.accelerator == "cpu":
            return None
        if trainer.device_name is not None:
            return cls(device_table.named(trainer.device_name), f"trainer.device_name={trainer.device_name}")
        import torch

        if torch.cuda.is_available():
            name = torch.cuda.get_device_name(0)
            found = device_table.find(name)
            return None if found is None else cls(found, "the one that is here")
        if (memory := trainer.device_memory_gib) is None:
            return None
        nearest = min((device_table.named(name) for name in _STAND_INS), key=lambda one: abs(one.memory_gib - memory))
        return cls(nearest, f"stands for a device of {memory:g} GiB; trainer.device_name names another")
