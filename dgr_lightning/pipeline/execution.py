"""Where the work of a stage runs, and the record that says it is done.

A stage that is done leaves `stages/<name>.json`; so the same command takes up a run wherever it stopped. On one CPU process the
work runs in this process, elsewhere in child processes: a process that ends gives back all of its GPU's memory. Stages that
work with the same model share a process, and with it the model's engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.distributed import torchrun
from dgr_lightning.files import read_json, write_json
from dgr_lightning.pipeline import stages
from dgr_lightning.threads import usable_cores

if TYPE_CHECKING:
    from dgr_lightning.engines.model_handle import ModelHandle

T = TypeVar("T")

Record = dict[str, Any]

Processes = Literal["one", "one per node", "ranks"]
"""One process; one on every node, which share what is to be generated; or a rank for every device."""


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: of its record.
        title: for the screen.
        compute: does the work: a function of `stages`, all but its last argument given, which is the run directory. Returns the
            record, JSON-able.
        processes: that it runs in, where it does not run in this one.
        measured: hash of what it depends on beyond the run hash; a record under another one is made again.
    """

    name: str
    title: str
    compute: Callable[[Path], Record]
    processes: Processes = "one"
    measured: str | None = None


def execute(stage: Stage, run_dir: Path, cfg: Config) -> Record:
    """Returns a stage's record: the one on disk, or what its work returns with the seconds that it took."""
    return _recorded(stage, run_dir) or _timed(stage, run_dir, partial(compute, stage.compute, run_dir, cfg, stage.processes))


def execute_together(together: Sequence[Stage], model: ModelHandle, run_dir: Path, cfg: Config) -> dict[str, Record]:
    """Returns the records of stages that work with one model, by name: those on disk, or made one after the other.

    All that are missing run in the same process, so that the model's engine is started once. A record is written when its stage
    is done: an exception in one loses nothing of those before it. Where none is missing, no process is started.

    Args:
        together: in their order; a later one may read the record of an earlier one. None runs on ranks.
        model: released when they are done.
        run_dir: holds the records.
        cfg: the config.
    """
    missing = [stage for stage in together if _has_to_run(stage, run_dir)]
    if missing:
        shared = [stage for stage in missing if stage.processes == "one per node"]
        work = partial(_run_each, together, model)
        compute(work, run_dir, cfg, "one per node" if shared else "one", partial(_run_each, shared, model))
    else:
        for stage in together:
            _recorded(stage, run_dir)
    return {stage.name: read_json(_record_file(stage, run_dir), "seconds") for stage in together}


def _run_each(together: Sequence[Stage], model: ModelHandle, run_dir: Path) -> None:
    """Runs the stages that are not done, one after the other, in this process."""
    with model:
        for stage in together:
            if _recorded(stage, run_dir) is None:
                _timed(stage, run_dir, partial(stage.compute, run_dir))


def _timed(stage: Stage, run_dir: Path, work: Callable[[], Record]) -> Record:
    """Does the work of a stage and writes its record, with the seconds that it took."""
    console.rule(f"[bold]{stage.title}[/]", align="left")
    start = monotonic()
    record = work()
    record |= {"seconds": monotonic() - start, "measured": stage.measured}
    write_json(_record_file(stage, run_dir), record)
    return record


def _recorded(stage: Stage, run_dir: Path) -> Record | None:
    """Returns the record of a stage that is done, and says so; None where it has to run."""
    if _has_to_run(stage, run_dir):
        return None
    say(f"[dim]{stage.title}: done before[/]")
    record: Record = read_json(_record_file(stage, run_dir), "seconds")
    return record


def _has_to_run(stage: Stage, run_dir: Path) -> bool:
    file = _record_file(stage, run_dir)
    return not file.exists() or bool(read_json(file, "seconds").get("measured") != stage.measured)


def _record_file(stage: Stage, run_dir: Path) -> Path:
    return run_dir / "stages" / f"{stage.name}.json"


def compute(
    work: Callable[[Path], T],
    out: Path,
    cfg: Config,
    processes: Processes,
    elsewhere: Callable[[Path], Any] | None = None,
) -> T:
    """Does work that writes into a folder, in as many processes as it takes, and returns what the first of them returned.

    Args:
        work: as `Stage.compute`, with any result that pickle takes.
        out: its last argument.
        cfg: the config.
        processes: that it runs in, where it does not run in this one.
        elsewhere: what the other nodes do of it, where there is one process on every node; None: the same.
    """
    trainer = cfg.trainer
    if trainer.accelerator == "cpu" and trainer.strategy == "single":
        return work(out)
    from dgr_lightning.distributed import multi_node
    from dgr_lightning.distributed.launch import run_ranks

    assert trainer.devices is not None, "cli/resolve.py gives trainer.devices a value"
    num_threads = max(1, usable_cores() // trainer.devices)
    here = partial(work, out)
    if torchrun.is_active():
        if processes == "ranks":
            return multi_node.run_on_all_ranks(here, num_threads)
        if processes == "one per node":
            return multi_node.run_on_every_machine(here, partial(stages.discard_output, elsewhere or work))
        return multi_node.run_on_driver(here)
    if processes == "ranks":
        return run_ranks(here, trainer.devices, max_restarts=trainer.max_restarts, num_threads=num_threads)
    return run_ranks(here, 1)
