"""The memory plan of a training before anything is generated, from the source set and what refinement may make of it.

A rewrite is as long as `refine.max_new_tokens` and the check of overthinking let it be, so an example is planned with the
longest that it may become, and with `sft.max_length` at most; the source's own rows are shown beside it. When the set has been
refined, the training plans once more, with its real rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config
from dgr_lightning.errors import UserError
from dgr_lightning.pipeline.set_lengths import ExampleLength, SetLengths
from dgr_lightning.prompts.templates import ANSWER, RESPONSE, TRACE
from dgr_lightning.refinement.strategy import strategy_of

if TYPE_CHECKING:
    from dgr_lightning.training.memory import RowSize
    from dgr_lightning.training.memory_fit import Fit
    from dgr_lightning.training.memory_sizes import ModelOutline

PLANNED_DEVICES = 8
"""Devices that a machine which is not there is taken to have at most."""


class PlannedMemory:
    """The memory plan of a training whose set is not refined yet.

    Attributes:
        bound: for the longest row that refinement may make.
        source: for the longest row of the source set as it is.
    """

    def __init__(self, outline: ModelOutline, cfg: Config, lengths: SetLengths, memory: int) -> None:
        """Plans both.

        Args:
            outline: of the model.
            cfg: of the run, no `auto` left in `trainer` but that of `recompute_every`.
            lengths: of the source set.
            memory: bytes of a device.
        """
        from dgr_lightning.training.memory_fit import fit_memory

        self._outline, self._cfg = outline, cfg
        self._longest = [longest_possible(example, cfg) for example in lengths.examples]
        own = [min(example.whole, cfg.sft.max_length) for example in lengths.examples]
        most, example = max(zip(self._longest, lengths.examples, strict=True), key=lambda pair: pair[0])
        self._cause = (
            f"{example.id} may take {most:,} (refine.max_new_tokens={cfg.refine.max_new_tokens}, "
            f"sft.max_length={cfg.sft.max_length}), and sft.max_tokens={cfg.sft.max_tokens}; in the source the longest of all "
            f"has {max(own):,}"
        )
        self.bound: Fit = fit_memory(outline, cfg, self._row(cfg), memory)
        self.source: Fit = fit_memory(outline, cfg, largest_row(own, cfg), memory)

    @classmethod
    def of(cls, folder: Path, cfg: Config, lengths: SetLengths) -> PlannedMemory | None:
        """Returns the plan; None where the memory of a device is not known, or the model cannot be planned.

        Args:
            folder: of the model; its config.json is read.
            cfg: as above.
            lengths: as above.
        """
        from dgr_lightning.training.memory_fit import device_memory, plannable
        from dgr_lightning.training.memory_sizes import ModelOutline

        memory = device_memory(cfg.trainer)
        if memory is None or not lengths.examples:
            return None
        outline = ModelOutline.of_folder(folder, cfg.model.trust_remote_code)
        row = largest_row([example.whole for example in lengths.examples], cfg)
        return cls(outline, cfg, lengths, memory) if plannable(outline, cfg, row) else None

    def require(self) -> None:
        """Raises a UserError with what to write instead where the training would not fit."""
        if self.bound.is_enough:
            return
        from dgr_lightning.training.memory_fit import misfit, remedies

        cfg = self._cfg
        raise UserError(misfit(self.bound, remedies(self._outline, cfg, self._row, self.bound.usable, _num_devices(cfg))))

    def _row(self, cfg: Config) -> RowSize:
        return largest_row(self._longest, cfg, self._cause)


def longest_possible(example: ExampleLength, cfg: Config) -> int:
    """Returns the tokens that an example has at most when it is refined; its own where a rewrite fails and it stays."""
    refine = cfg.refine
    strategy = strategy_of(refine)
    source = min(example.whole, cfg.sft.max_length)
    if not strategy.generates or not refine.fraction:
        return source
    parts = {TRACE: example.trace, ANSWER: example.answer}
    read = strategy.refine
    # Only what a check refuses beyond a length cannot be kept beyond it.
    kept = read.overthinking_tokens if "overthinking" in read.checks else read.max_new_tokens
    for part in {step.part for step in strategy.steps()}:
        if part == RESPONSE:
            written = min(read.max_new_tokens, len(parts) * kept)
            parts = {RESPONSE: max(sum(parts.values()), written)}
        elif parts.get(part):
            parts[part] = max(parts[part], min(read.max_new_tokens, kept))
    return min(cfg.sft.max_length, example.prompt + example.marks + sum(parts.values()))


def largest_row(tokens: Sequence[int], cfg: Config, cause: str = "") -> RowSize:
    """Returns a bound of the largest row that a set can be packed into, all of whose tokens are targets.

    Args:
        tokens: of every example.
        cfg: `sft.batch_size`, `sft.max_tokens` and the number of devices are read.
        cause: which row it is, for people.
    """
    from dgr_lightning.training.memory import RowSize
    from dgr_lightning.training.packing import padded_length

    trainer, longest, capacity = cfg.trainer, max(tokens), cfg.sft.max_tokens
    assert trainer.devices is not None, "trainer.devices is resolved before memory is planned"
    ranks = max(1, trainer.devices * trainer.nodes // trainer.tensor_parallel)
    step = sum(heapq.nlargest(cfg.sft.batch_size, tokens))
    # Several ranks do not fill their rows one by one (`packing.shard_rows`): no row exceeds the mean by more than an example.
    row = max(longest, min(capacity, step if ranks == 1 else step // ranks + longest))
    # Best fit leaves no two rows that would go into one, so there are fewer than twice as many as needed.
    num_rows = min(cfg.sft.batch_size, 1 if step <= capacity else 2 * step // capacity + 1)
    padded = padded_length(row, few_lengths=trainer.compile is True)
    return RowSize((padded,), padded, several=num_rows > ranks, cause=cause)


def _num_devices(cfg: Config) -> int:
    from dgr_lightning.training.memory_fit import devices_here

    return max(PLANNED_DEVICES, cfg.trainer.devices or 1) if cfg.plan else devices_here(cfg.trainer)
