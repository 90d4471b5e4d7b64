"""`trainer.strategy=auto`: shards of the model (FSDP), all of it on each device (DDP), or one device alone.

On one GPU a full training gains by FSDP, which casts its fp32 weights to bf16 a layer at a time. The other way is autocast,
with a residual stream in fp32 and bf16 copies of all weights at once.

Adapters are a hundredth of a model or less. Under FSDP the frozen weights would be gathered twice a step for them; under DDP
their gradients alone are exchanged. So adapters are trained under DDP wherever it needs no more memory than there is, by the
memory plan of the longest row that the recipe allows: no row of the set can be longer, refined or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dgr_lightning.config import Config, TrainerConfig
from dgr_lightning.training.optimizer import OPTIMIZERS


def choose_strategy(cfg: Config, model_folder: Callable[[], Path]) -> tuple[str, str | None]:
    """Returns `single`, `fsdp` or `ddp`, and why where it is not plain.

    Args:
        cfg: `tuning`, `sft` and `trainer` are read; of `trainer` no `auto` but in `strategy` and `recompute_every`.
        model_folder: returns a folder with the model's config.json; called where that is read.

    Raises:
        UserError: the config cannot be read, or its model cannot take the adapters.
    """
    trainer = cfg.trainer
    if any_strategy(trainer) == "single":
        return ("fsdp", "which computes in bf16 on one device, too") if _gains_by_gathering(cfg) else ("single", None)
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


def any_strategy(trainer: TrainerConfig) -> str:
    """Returns a strategy for this many devices, where nothing is trained."""
    assert trainer.devices is not None, "resolve_devices gives it a value"
    return "fsdp" if trainer.devices * trainer.nodes > 1 else "single"


def _gains_by_gathering(cfg: Config) -> bool:
    """Whether a training on one device gains by FSDP; adapters do not, beside frozen weights that are bf16 already."""
    trainer, optimizer = cfg.trainer, OPTIMIZERS.get(cfg.sft.optimizer)
    in_bf16 = trainer.accelerator == "cuda" and trainer.precision == "bf16"
    return in_bf16 and cfg.tuning.method == "full" and optimizer.sharded_instead is None
