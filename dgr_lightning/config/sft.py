"""Keys of `sft`: the training recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import setting


@dataclass
class SftConfig:
    """The training recipe: it determines the trained model, and nothing of the machine is in it but max_tokens."""

    lr: float = setting(1e-5, "peak learning rate", above=0.0, high=1.0)
    epochs: int = setting(5, "passes over the set", low=1)
    max_steps: Optional[int] = setting(None, "stop after so many optimizer steps; null: epochs decides", low=1)
    batch_size: int = setting(8, "examples per optimizer step over all ranks", low=1)
    max_length: int = setting(16384, "tokens per example; a longer one loses the end of its trace, never its answer", low=8)
    max_tokens: int = setting(8192, "capacity of a packed row: memory, not recipe", low=8)
    optimizer: str = setting(
        "adamw",
        "adamw, adamw8bit, adamw8bit-torchao, muon, paged-adamw or paged-adamw8bit; or your own package.module:NAME",
    )
    weight_decay: float = setting(1e-4, "decoupled weight decay on matrices", low=0.0, high=10.0)
    warmup_ratio: float = setting(
        0.1, "share of the steps that the learning rate rises; then a cosine to zero", low=0.0, high=1.0
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient", above=0.0)
    select: Optional[str] = setting(
        None,
        "which weights become the model: those where this curve of the probes is highest, such as probe/reasoning_accuracy; "
        "null: those of the last step",
    )
