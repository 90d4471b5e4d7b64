"""What the data sheets say of a GPU: arithmetic, memory and bandwidth, by the name that the driver gives it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dgr_lightning.errors import UserError


@dataclass(frozen=True)
class Device:
    """A GPU as its vendor describes it.

    Attributes:
        name: for people; its words are those by which `named` finds it.
        bf16_flops: peak of dense bf16 products with fp32 sums, in FLOP/s (half of a figure with sparsity).
        memory_gib: the sheet's gigabytes, which are nearly GiB; the driver keeps 1 % of them, and ECC 6 % of GDDR memory.
        memory_bandwidth: in bytes/s.
        words: by which `find` recognises the driver's name, in lower case; of several devices that with most words counts.
    """

    name: str
    bf16_flops: float
    memory_gib: int
    memory_bandwidth: float
    words: frozenset[str]


def _device(name: str, teraflops: float, memory_gib: int, terabytes: float, words: str) -> Device:
    return Device(name, teraflops * 1e12, memory_gib, terabytes * 1e12, frozenset(words.split()))


# From the vendors' data sheets; for GeForce cards from the white paper of the architecture (FP16 and BF16 with FP32 sums).
# V100 and T4 are absent: they do not multiply in bf16.
DEVICES = (
    _device("GB200", 2500, 186, 8.0, "gb200"),
    _device("B200", 2250, 180, 8.0, "b200"),
    _device("GH200", 989, 96, 4.0, "gh200"),
    _device("GH200 144GB", 989, 144, 4.9, "gh200 144g"),
    _device("H200", 989, 141, 4.8, "h200"),
    _device("H200 NVL", 835, 141, 4.8, "h200 nvl"),
    _device("H100 SXM", 989, 80, 3.35, "h100"),
    _device("H100 NVL", 835, 94, 3.9, "h100 nvl"),
    _device("H100 PCIe", 756, 80, 2.0, "h100 pcie"),
    _device("H800", 989, 80, 3.35, "h800"),
    _device("H20", 148, 96, 4.0, "h20"),
    _device("A100 SXM 80GB", 312, 80, 2.039, "a100 80gb"),
    _device("A100 PCIe 80GB", 312, 80, 1.935, "a100 80gb pcie"),
    _device("A100 40GB", 312, 40, 1.555, "a100 40gb"),
    _device("A800 80GB", 312, 80, 2.039, "a800 80gb"),
    _device("A40", 149.7, 48, 0.696, "a40"),
    _device("A30", 165, 24, 0.933, "a30"),
    _device("A10", 125, 24, 0.6, "a10"),
    _device("A10G", 70, 24, 0.6, "a10g"),
    _device("L40S", 362, 48, 0.864, "l40s"),
    _device("L40", 181, 48, 0.864, "l40"),
    _device("L4", 121, 24, 0.3, "l4"),
    _device("RTX 6000 Ada", 364, 48, 0.96, "6000 ada"),
    _device("RTX A6000", 155, 48, 0.768, "a6000"),
    _device("RTX 5090", 209.5, 32, 1.792, "5090"),
    _device("RTX 4090", 165, 24, 1.008, "4090"),
    _device("RTX 3090", 71, 24, 0.936, "3090"),
    _device("MI300X", 1307, 192, 5.3, "mi300x"),
)
# A part of a device, or a slower one with nearly the same name.
_OTHERS = {"mig", "laptop", "mobile", "d"}


def find(name: str) -> Device | None:
    """Returns the device that `torch.cuda.get_device_name` names, such as `NVIDIA A100-SXM4-80GB`; None if it is unknown.

    Whole words count, so that an L40 is no L4.
    """
    words = _words(name)
    if words & _OTHERS:
        return None
    return max((device for device in DEVICES if device.words <= words), key=lambda device: len(device.words), default=None)


def named(short: str) -> Device:
    """Returns the device with a name as people write it, in any case and with any separators: `h100-nvl`, `A100 40GB`, `h100`.

    Raises:
        UserError: there is none; its message lists the names.
    """
    words = _words(short)
    exact = next((device for device in DEVICES if _words(device.name) == words), None)
    if (device := exact or find(short)) is None:
        raise UserError(f"There is no device {short!r} in the table. It has {', '.join(device.name for device in DEVICES)}.")
    return device


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
