"""Keys of `tuning`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import NEVER, TRAINING, setting


@dataclass
class TuningConfig:
    """Which weights are trained: all of them, or low-rank adapters on a frozen model."""

    method: str = setting(
        "full",
        "full: every weight; lora: adapters on a frozen model; qlora: on a frozen model whose matrices have 4 bits",
        choices=("full", "lora", "qlora"),
        hashed=TRAINING,
    )
    rank: int = setting(16, "rank of an adapter", low=1, hashed=TRAINING, read_by=("lora", "qlora"))
    alpha: float = setting(
        32.0,
        "scale: the update of an adapter is multiplied by alpha / rank",
        above=0.0,
        hashed=TRAINING,
        read_by=("lora", "qlora"),
    )
    dropout: float = setting(
        0.0, "dropout on what goes into an adapter", low=0.0, high=0.9, hashed=TRAINING, read_by=("lora", "qlora")
    )
    target_modules: list[str] = setting(
        ["all-linear"],
        "linear layers with an adapter, by the end of their name, such as [up_proj]; all-linear: every one",
        private=False,
        hashed=TRAINING,
        read_by=("lora", "qlora"),
    )
    layers: Optional[str] = setting(
        None,
        "decoder layers with adapters: 16-31 (from 0, both included) or 33%-67% of the depth; null: all",
        private=False,
        hashed=TRAINING,
        read_by=("lora", "qlora"),
    )
    quant_storage: str = setting(
        "auto",
        "qlora: type that the 4-bit weights are packed into, no part of the result; auto: the computation's",
        choices=("auto", "bf16", "fp32", "uint8"),
        hashed=NEVER,
        read_by=("qlora",),
    )


LAYER_RANGE = re.compile(r"(\d+)-(\d+)|(\d+(?:\.\d+)?)%-(\d+(?:\.\d+)?)%")
"""Format of `tuning.layers`: first and last layer, or the range as shares of the depth."""
