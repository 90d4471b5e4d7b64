"""Whether a training fits the memory of its devices, how much it recomputes for that, and what to write where it does not.

Three kinds of changes make a training smaller: those that leave the result as it is (recomputing, CPU offload, more devices,
shorter rows), another optimizer, another method. `remedies` lists the combinations that fit, the mildest kind first, without
any that contains another of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import torch

from dgr_lightning.config import Config, TrainerConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say
from dgr_lightning.distributed.gpu_memory import smallest_gpu_memory
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.training.memory import MemoryPlan, RowSize, memory_plan, usable
from dgr_lightning.training.memory_sizes import ModelOutline
from dgr_lightning.training.optimizer import BYTES_OF_8_BIT_STATES, OPTIMIZERS

GIB = 2**30
MOST_REMEDIES = 8
_DEVICES = (2, 4, 8, 16)
_SHORTER = (3 / 4, 1 / 2, 1 / 4, 1 / 8)
"""Shares of `sft.max_tokens` that are tried."""

Rows = Callable[[Config], RowSize]
"""The largest row under a config: its capacity and the number of devices decide how examples are packed."""

Remedy = tuple[str, ...]
"""Overrides that are given together."""


def device_memory(trainer: TrainerConfig) -> int | None:
    """Returns the bytes of a device: as stated, else as the GPU says; None on a CPU, whose memory is then not planned."""
    if trainer.device_memory_gib is not None:
        return int(trainer.device_memory_gib * GIB)
    if trainer.accelerator == "cuda" and torch.cuda.is_available():
        return smallest_gpu_memory()
    return None


def devices_here(trainer: TrainerConfig) -> int:
    """Returns how many devices this machine could train on, those that are asked for at least."""
    here = torch.cuda.device_count() if trainer.accelerator == "cuda" else 1
    return max(here, trainer.devices or 1)


@dataclass(frozen=True)
class Fit:
    """A training beside the memory of a device.

    Attributes:
        plan: what it needs.
        row: for which row.
        memory: bytes of the device.
        usable: of them, those that can be planned with.
    """

    plan: MemoryPlan
    row: RowSize
    memory: int
    usable: int

    @property
    def is_enough(self) -> bool:
        """Whether it fits."""
        return self.plan.total <= self.usable


def fit_memory(outline: ModelOutline, cfg: Config, row: RowSize, memory: int, *, reshard_after_forward: bool = True) -> Fit:
    """Returns the plan of a training; with `trainer.recompute_every=auto`, the one that recomputes least of those that fit.

    Where none fits, it is the plan that recomputes every layer. The question whether a training fits on one device is this
    with `trainer.devices=1` and `trainer.strategy=single` in the config.

    Args:
        outline: of the model.
        cfg: as for `memory_plan`.
        row: the largest.
        memory: bytes of a device.
        reshard_after_forward: as for `memory_plan`.
    """
    room = usable(memory, cfg.trainer.accelerator)
    return Fit(_plan(outline, cfg, row, room, reshard_after_forward=reshard_after_forward), row, memory, room)


def _plan(outline: ModelOutline, cfg: Config, row: RowSize, room: int, *, reshard_after_forward: bool = True) -> MemoryPlan:
    depth = len(outline.sizes(cfg.tuning).layers)
    asked = cfg.trainer.recompute_every
    choices = [0, *range(depth, 0, -1)] if asked == AUTO else [asked]  # from none to all layers
    for every in choices:
        plan = memory_plan(outline, cfg, row, every, reshard_after_forward=reshard_after_forward)
        if plan.total <= room:
            break
    return plan


def fits(outline: ModelOutline, cfg: Config, row: RowSize, memory: int, *, reshard_after_forward: bool = True) -> bool:
    """Whether a training fits, by `fit_memory`."""
    return fit_memory(outline, cfg, row, memory, reshard_after_forward=reshard_after_forward).is_enough


def require_fit(outline: ModelOutline, cfg: Config, rows: Rows, memory: int, num_devices: int) -> Fit:
    """Returns the plan of a training that fits.

    Args:
        outline: of the model.
        cfg: as for `memory_plan`.
        rows: its largest row.
        memory: bytes of a device.
        num_devices: devices that a machine has, for what to write instead.

    Raises:
        UserError: it does not, with what takes the memory and what to write instead.
    """
    fit = fit_memory(outline, cfg, rows(cfg), memory)
    if not fit.is_enough:
        raise UserError(misfit(fit, remedies(outline, cfg, rows, fit.usable, num_devices)))
    return fit


def plannable(outline: ModelOutline, cfg: Config, row: RowSize) -> bool:
    """Whether memory can be planned for a model; says why not. Code from outside may do what cannot be done without values."""
    from rich.markup import escape

    try:
        memory_plan(outline, cfg, row, 0)
    except UserError:
        raise
    except Exception as error:
        why = escape(f"{type(error).__name__}: {one_line(error, 200)}")
        say(f"[yellow]the memory of this training is not planned: {why}[/]")
        return False
    return True


def misfit(fit: Fit, tried: list[Remedy]) -> str:
    """Returns what is said of a training that does not fit."""
    kinds = [f"  {kind:<30} {size / GIB:8.1f} GiB" for kind, size in fit.plan.bytes.items() if size >= GIB / 20]
    lines = [
        f"The training needs {fit.plan.total / GIB:.1f} GiB on each device, most at {fit.plan.moment}; of its "
        f"{fit.memory / GIB:.1f} GiB, {fit.usable / GIB:.1f} can be planned with.",
        *kinds,
        f"  for a row of {fit.row.num_tokens:,} tokens{f': {fit.row.cause}' if fit.row.cause else ''}",
    ]
    if not tried:
        return "\n".join([*lines, "No setting that is known here makes it fit: take a smaller model or more devices."])
    return "\n".join([*lines, *(f"try: {' '.join(remedy)}" for remedy in tried)])


def remedies(
    outline: ModelOutline,
    cfg: Config,
    rows: Rows,
    room: int,
    num_devices: int,
    recomputing: Sequence[int | str] = (AUTO,),
) -> list[Remedy]:
    """Returns the combinations of overrides with which a training fits, mildest first; none contains another one.

    Args:
        outline: of the model.
        cfg: of the training, as for `memory_plan`.
        rows: its largest row.
        room: bytes of a device that can be planned with.
        num_devices: the most devices that `trainer.devices` may ask for.
        recomputing: values of `trainer.recompute_every` that are tried.
    """
    found: list[tuple[frozenset[str], Remedy]] = []
    for names, changes in _combinations(cfg, num_devices, recomputing):
        if len(found) == MOST_REMEDIES:
            break
        if any(known <= names for known, _ in found):
            continue
        for choices in product(*changes):
            changed = deepcopy(cfg)
            overrides: Change = {}
            for change in choices:
                overrides |= change
            if not _adapt(changed, overrides):
                continue
            if _has_room(outline, changed, rows(changed), room):
                found.append((names, tuple(f"{key}={_written(value)}" for key, value in overrides.items())))
                break
    # An optimizer that cannot be sharded is replaced by another where a milder change shards the training.
    return sorted((remedy for _, remedy in found), key=_is_harsh)


def _has_room(outline: ModelOutline, cfg: Config, row: RowSize, room: int) -> bool:
    try:
        return _plan(outline, cfg, row, room).total <= room
    except Exception:  # the model cannot take such adapters, or is not traced with them
        return False


def _is_harsh(remedy: Remedy) -> tuple[bool, bool]:
    text = " ".join(remedy)
    return "tuning=" in text, "sft.optimizer=" in text


Change = dict[str, object]
"""Key → its new value."""


def _combinations(
    cfg: Config, num_devices: int, recomputing: Sequence[int | str]
) -> Iterator[tuple[frozenset[str], list[list[Change]]]]:
    """Yields sets of changes, the mildest kind first and few before many, each with the values that are tried in order."""
    same = _same_result(cfg, num_devices, recomputing)
    optimizer: dict[str, list[Change]] = {"optimizer": [{"sft.optimizer": "adamw8bit"}]} if _states_can_shrink(cfg) else {}
    methods: list[dict[str, list[Change]]] = [{name: [{"tuning": name}]} for name in _smaller_methods(cfg)]
    for others in ({}, optimizer, *methods, *({**optimizer, **method} for method in methods)):
        subsets = sorted(_subsets(list(same)), key=len)
        for subset in subsets:
            chosen = {name: same[name] for name in subset} | others
            if chosen:
                yield frozenset(chosen), list(chosen.values())


def _subsets(names: list[str]) -> list[list[str]]:
    return [[name for place, name in enumerate(names) if number >> place & 1] for number in range(2 ** len(names))]


def _same_result(cfg: Config, num_devices: int, recomputing: Sequence[int | str]) -> dict[str, list[Change]]:
    """Returns the changes that leave the result of a training as it is."""
    trainer = cfg.trainer
    changes: dict[str, list[Change]] = {}
    if trainer.recompute_every not in (AUTO, 1):
        changes["recompute"] = [{"trainer.recompute_every": every} for every in recomputing]
    if trainer.reshard_after_forward is False:
        changes["reshard"] = [{"trainer.reshard_after_forward": True}]
    if trainer.accelerator == "cuda" and not trainer.cpu_offload and trainer.tensor_parallel == 1:
        changes["offload"] = [{"trainer.strategy": "fsdp", "trainer.cpu_offload": True}]
    assert trainer.devices is not None, "trainer.devices is resolved before memory is planned"
    sharded: list[Change] = []
    if trainer.strategy == "fsdp" and trainer.shard_size not in (None, trainer.devices * trainer.nodes):
        sharded.append({"trainer.shard_size": None})
    if trainer.strategy == "ddp" and trainer.devices * trainer.nodes > 1:
        sharded.append({"trainer.strategy": "fsdp"})
    for devices in _DEVICES:
        if trainer.devices < devices <= num_devices and devices * trainer.nodes % (trainer.shard_size or 1) == 0:
            sharding: Change = {} if trainer.strategy == "fsdp" else {"trainer.strategy": "fsdp"}
            sharded.append(sharding | {"trainer.devices": devices})
    if sharded:
        changes["devices"] = sharded
    shorter = [int(cfg.sft.max_tokens * share) // 64 * 64 for share in _SHORTER]
    changes["rows"] = [{"sft.max_tokens": tokens} for tokens in shorter if tokens >= 64]
    return {name: values for name, values in changes.items() if values}


def _states_can_shrink(cfg: Config) -> bool:
    return OPTIMIZERS.get(cfg.sft.optimizer).state_bytes > BYTES_OF_8_BIT_STATES


def _smaller_methods(cfg: Config) -> list[str]:
    if cfg.trainer.tensor_parallel > 1 or find_spec("peft") is None:
        return []
    methods = {"full": ["lora", "qlora"], "lora": ["qlora"], "qlora": []}[cfg.tuning.method]
    # On a CPU, bitsandbytes takes matrices of some widths alone (`quantization.make_safe_on_cpu`).
    four_bit = cfg.trainer.accelerator == "cuda" and find_spec("bitsandbytes") is not None
    return [name for name in methods if name != "qlora" or four_bit]


def _adapt(cfg: Config, overrides: Change) -> bool:
    """Applies overrides to a config, with those that they bring about, which are added; False where they do not go together."""
    for key, value in overrides.items():
        if key == "tuning":
            cfg.tuning.method = str(value)
        else:
            section, name = key.split(".")
            setattr(getattr(cfg, section), name, value)
    alone = cfg.trainer.devices == 1 and cfg.trainer.nodes == 1
    if "tuning" in overrides and alone and not cfg.trainer.cpu_offload:
        cfg.trainer.strategy = "single"  # what trainer.strategy=auto takes for adapters there, and what needs more
    wants_8_bit = "sft.optimizer" in overrides
    sharded = cfg.trainer.strategy == "fsdp"
    if wants_8_bit:
        cfg.sft.optimizer = overrides["sft.optimizer"] = "adamw8bit-torchao" if sharded else "adamw8bit"
    spec = OPTIMIZERS.get(cfg.sft.optimizer)
    if sharded and spec.sharded_instead is not None:
        cfg.sft.optimizer = overrides["sft.optimizer"] = spec.sharded_instead
        spec = OPTIMIZERS.get(cfg.sft.optimizer)
    if cfg.tuning.method != "full" and spec.not_for_adapters is not None:
        cfg.sft.optimizer = overrides["sft.optimizer"] = "adamw"
        spec = OPTIMIZERS.get("adamw")
    return spec.package is None or find_spec(spec.package) is not None


def _written(value: object) -> str:
    """Returns a value as the command line takes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
