"""`sft.optimizer=adamw8bit`: bitsandbytes' AdamW with states in 8 bits (arXiv 2110.02861), which cannot be sharded."""

from __future__ import annotations

from dgr_lightning.training.optimizer import bitsandbytes_spec

OPTIMIZER = bitsandbytes_spec("AdamW8bit", "adamw8bit-torchao", stored_bytes=2)
