"""Keys of `shift`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import NEVER, setting


@dataclass
class ShiftConfig:
    """Measurements of the distribution shift. They change nothing about the trained model."""

    limit: Optional[int] = setting(
        1000, "examples whose NLL is measured, the same before and after; null: all", low=1, hashed=NEVER
    )
    embedding: Optional[str] = setting(
        None,
        "embedding similarity: target (its own hidden states), or the folder of an embedding model; null: not measured",
        private=True,
        hashed=NEVER,
    )
    tuned: Optional[str] = setting(
        None,
        "in a refinement: folder of a tuned model to compare with the target; a training takes its own",
        private=True,
        hashed=NEVER,
    )
    prompts: int = setting(
        0,
        "prompts of each kind on which base and tuned model are compared: KL and, with embedding, outputs; 0: none",
        low=0,
        hashed=NEVER,
    )
    max_new_tokens: int = setting(1024, "tokens of a trace that the base writes for the KL", low=1, hashed=NEVER)
    seed: int = setting(0, "seed of the traces that the base writes for the KL", low=0, hashed=NEVER)
