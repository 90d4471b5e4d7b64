"""The memory plan of a training on its real rows, before any weight is loaded: packing is a pure function of the set.

From it follow how many layers are recomputed (`trainer.recompute_every=auto`) and the row with which the training is rehearsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from dgr_lightning.config import Config
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.errors import UserError
from dgr_lightning.training.memory import RowSize, memory_plan
from dgr_lightning.training.memory_fit import GIB, Fit, device_memory, devices_here, misfit, plannable, remedies, require_fit
from dgr_lightning.training.memory_sizes import ModelOutline
from dgr_lightning.training.packing import StepLoader

_LESS = 0.9
"""What ran out of memory although it was planned to fit is advised to need this share of its plan at most."""

_RECOMPUTING = (8, 4, 2, 1)


class RowsMemory:
    """The memory plan of a training whose set is encoded.

    Attributes:
        fit: the plan; None where the device's memory is not known or the model cannot be planned.
        recompute_every: `trainer.recompute_every`, `auto` resolved.
        reshard_after_forward: the same; `auto` does not reshard where that fits without recomputing more.
    """

    def __init__(self, folder: Path, cfg: Config, loader: Callable[[Config, Ranks], StepLoader], ranks: Ranks) -> None:
        """Plans, and says what was chosen. Collective.

        Args:
            folder: of the model; its config.json is read.
            cfg: of the run, no `auto` left in `trainer` but that of `recompute_every`.
            loader: makes the steps of the training under a config, as one of its ranks sees them.
            ranks: this process among them.

        Raises:
            UserError: it does not fit, with what to write instead.
        """
        self._cfg, self._loader = cfg, loader
        self.fit: Fit | None = None
        asked = cfg.trainer.recompute_every
        self.recompute_every = 0 if asked == AUTO else asked
        self.reshard_after_forward = cfg.trainer.reshard_after_forward is not False
        known = ranks.all_gather(device_memory(cfg.trainer))
        if None in known:
            return
        memory = min(known)
        self._outline = ModelOutline.of_folder(folder, cfg.model.trust_remote_code)
        if not plannable(self._outline, cfg, self._row(cfg)):
            return
        self.fit = require_fit(self._outline, cfg, self._row, memory, devices_here(cfg.trainer))
        self.recompute_every = self.fit.plan.recompute_every
        # A single rank has nothing to gather.
        if cfg.trainer.strategy == "fsdp" and ranks.size > 1 and cfg.trainer.reshard_after_forward == AUTO:
            kept = memory_plan(self._outline, cfg, self.fit.row, self.recompute_every, reshard_after_forward=False)
            if kept.total <= self.fit.usable:
                self.fit, self.reshard_after_forward = replace(self.fit, plan=kept), False
        if ranks.is_first and (cfg.trainer.accelerator == "cuda" or self.recompute_every):
            say(
                f"memory: {self.fit.plan.total / GIB:.1f} of {self.fit.usable / GIB:.1f} GiB on each device, most at "
                f"{self.fit.plan.moment}; trainer.recompute_every={self.recompute_every}"
                + ("" if self.reshard_after_forward else ", trainer.reshard_after_forward=false")
            )

    def out_of_memory(self, error: torch.OutOfMemoryError) -> UserError:
        """Returns what is said where the training runs out of memory all the same."""
        reason = str(error).partition(". ")[0]
        cfg = self._cfg
        if self.fit is None:
            longest = max(len(example.ids) for example in self._loader(cfg, Ranks()).encoded)
            return UserError(
                f"A step needs more memory than its device has ({reason}). trainer.recompute_every=1 keeps fewer activations; "
                f"shorter rows take less (sft.max_tokens={cfg.sft.max_tokens}; the longest example has {longest:,}: "
                "sft.max_length=); so do trainer.strategy=fsdp on more devices, an 8-bit sft.optimizer, and tuning=lora."
            )
        # What `auto` takes for enough was not.
        trainer = replace(cfg.trainer, recompute_every=self.recompute_every)
        cfg = replace(cfg, trainer=trainer)
        less = replace(self.fit, usable=int(_LESS * min(self.fit.usable, self.fit.plan.total)))
        tried = remedies(self._outline, cfg, self._row, less.usable, devices_here(cfg.trainer), _RECOMPUTING)
        return UserError(f"A step needs more memory than its device has ({reason}).\n{misfit(less, tried)}")

    def _row(self, cfg: Config) -> RowSize:
        trainer = cfg.trainer
        assert trainer.devices is not None, "trainer.devices is resolved before training"
        ranks = Ranks(0, trainer.devices * trainer.nodes, 0, trainer.tensor_parallel)
        row = self._loader(cfg, ranks).largest_row()
        cause = f"step {row.step:,} packs {len(row.documents)} examples into it (sft.max_tokens={cfg.sft.max_tokens})"
        return RowSize(row.lengths, row.num_targets, row.several, cause)
