"""`trainer.strategy=auto` on several devices: shards of the model (FSDP), or all of it on each (DDP).

Adapters are a hundredth of a model or less. Under FSDP the frozen weights would be gathered twice a step for them; under DDP
their gradients alone are exchanged. So adapters are trained under DDP wherever it needs no more memory than there is, by the
memory plan of the longest row that the recipe allows: no row of the set can be longer, refined or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dgr_lightning.config import Config


def choose_strategy(cfg: Config, model_folder: Callable[[], Path]) -> tuple[str, str | None]:
    """Returns `fsdp` or `ddp`, and why where the memory of a device has decided it.

    Args:
        cfg: `tuning`, `sft` and `trainer` are read; of `trainer` no `auto` but in `strategy` and `recompute_every`.
        model_folder: returns a folder with the model's config.json; called where that is read.

    Raises:
        UserError: the config cannot be read, or its model cannot take the adapters.
    """
    trainer = cfg.trainer
    for_shards = trainer.shard_size is not None or trainer.tensor_parallel > 1 or trainer.cpu_offload
    if cfg.tuning.method == "full" or for_shards:
        return "fsdp", None
    from dgr_lightning.training.memory import RowSize
    from dgr_lightning.training.memory_fit import GIB, device_memory, fit_memory, plannable
    from dgr_lightning.training.memory_sizes import ModelOutline
    from dgr_lightning.training.packing import MULTIPLE

    if (memory := device_memory(trainer)) is None:
        return "fsdp", None
    whole = replace(cfg, trainer=replace(trainer, strategy="ddp"))
    longest = -(-max(cfg.sft.max_length, cfg.sft.max_tokens) // MULTIPLE) * MULTIPLE
    row, outline = RowSize((longest,), longest), ModelOutline.of_folder(model_folder(), cfg.model.trust_remote_code)
    if not plannable(outline, whole, row):
        return "fsdp", None
    fit = fit_memory(outline, whole, row, memory)
    needed = f"{fit.plan.total / GIB:.1f} of {memory / GIB:.0f} GiB for a row of {longest:,} tokens"
    return "ddp" if fit.is_enough else "fsdp", f"the whole model on each device takes {needed}"
