"""Where the work of a stage runs, and the record that says it is done.

A stage that is done leaves `stages/<name>.json`; so the same command takes up a run wherever it stopped. On one CPU process the
work runs in this process, elsewhere in child processes: a process that ends gives back all of its GPU's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeVar

from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.distributed import torchrun
from dgr_lightning.files import read_json, write_json
from dgr_lightning.pipeline import stages
from dgr_lightning.threads import usable_cores

T = TypeVar("T")

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
    compute: Callable[[Path], dict[str, Any]]
    processes: Processes = "one"
    measured: str | None = None


def execute(stage: Stage, run_dir: Path, cfg: Config) -> dict[str, Any]:
    """Returns a stage's record: the one on disk, or what its work returns with the seconds that it took."""
    path = run_dir / "stages" / f"{stage.name}.json"
    if path.exists():
        record: dict[str, Any] = read_json(path, "seconds")
        if record.get("measured") == stage.measured:
            say(f"[dim]{stage.title}: done before[/]")
            return record
    console.rule(f"[bold]{stage.title}[/]", align="left")
    start = monotonic()
    record = compute(stage.compute, run_dir, cfg, stage.processes)
    record |= {"seconds": monotonic() - start, "measured": stage.measured}
    write_json(path, record)
    return record


def compute(work: Callable[[Path], T], out: Path, cfg: Config, processes: Processes) -> T:
    """Does work that writes into a folder, in as many processes as it takes, and returns what the first of them returned.

    Args:
        work: as `Stage.compute`, with any result that pickle takes.
        out: its last argument.
        cfg: the config.
        processes: that it runs in, where it does not run in this one.
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
            return multi_node.run_on_every_machine(here, partial(stages.discard_output, work))
        return multi_node.run_on_driver(here)
    if processes == "ranks":
        return run_ranks(here, trainer.devices, max_restarts=trainer.max_restarts, num_threads=num_threads)
    return run_ranks(here, 1)
