"""`sft.optimizer=paged-adamw`: bitsandbytes' AdamW whose states move to host memory when the GPU's is full (arXiv 2305.14314).

On a CPU nothing is paged. Its states cannot be sharded.
"""

from __future__ import annotations

from dgr_lightning.training.optimizer import bitsandbytes_spec

OPTIMIZER = bitsandbytes_spec("PagedAdamW", "adamw", stored_bytes=8)
