"""`sft.optimizer=paged-adamw8bit`: bitsandbytes' paged AdamW (arXiv 2305.14314) with states in 8 bits (arXiv 2110.02861).

On a CPU nothing is paged. Its states cannot be sharded.
"""

from __future__ import annotations

from dgr_lightning.training.optimizer import bitsandbytes_spec

OPTIMIZER = bitsandbytes_spec("PagedAdamW8bit", "adamw8bit-torchao", stored_bytes=2)
