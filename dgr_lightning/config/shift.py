"""Keys of `shift`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import setting


@dataclass
class ShiftConfig:
    """What a run measures of the distribution shift: it changes nothing about the trained model."""

    limit: Optional[int] = setting(1000, "examples whose NLL is measured, the same before and after; null: all", low=1)
    embedding: Optional[str] = setting(
        None, "embedding similarity: target (its own hidden states), or the folder of an embedding model; null: not measured"
    )
    tuned: Optional[str] = setting(
        None, "refine.py: folder of a tuned model to compare with the target; train.py takes its own"
    )
    prompts: int = setting(
        0, "prompts a kind on which base and tuned are compared: KL and, with embedding, outputs; 0: none", low=0
    )
    max_new_tokens: int = setting(1024, "tokens of a trace that the base writes for the KL", low=1)
    seed: int = setting(0, "seed of the traces that the base writes for the KL", low=0)
