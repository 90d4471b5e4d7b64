"""A GPU is recognised by the name that the driver gives it."""

import pytest

from dgr_lightning.distributed.device_table import DEVICES, find, named
from dgr_lightning.errors import UserError


@pytest.mark.parametrize(
    ("driver", "device"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_the_drivers_name_says_which_device_it_is(driver: str, device: str) -> None:
    found = find(driver)
    assert found is not None and found.name == device


@pytest.mark.parametrize(
    "driver",
    [
        "Tesla V100-SXM2-32GB",
        "Tesla T4",
        "Quadro RTX 6000",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "",
    ],
)
def test_an_unknown_device_or_a_part_of_one_has_no_figures(driver: str) -> None:
    assert find(driver) is None


def test_every_device_is_found_by_its_own_name_in_any_writing() -> None:
    assert all(named(device.name.lower().replace(" ", "-")) is device for device in DEVICES)
    assert named("h100").name == "H100 SXM"


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"There is no device 'h1000' in the table\. It has GB200, B200, .*MI300X\."):
        named("h1000")
