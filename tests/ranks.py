"""Two ranks that talk through gloo on this machine, for tests: started as a training's are."""

from collections.abc import Callable
from functools import partial
from typing import Any

from dgr_lightning.launch import run_ranks
from dgr_lightning.parallel import Ranks


def on_two_ranks(work: Callable[..., None], *arguments: Any) -> None:
    """Calls `work(ranks, *arguments)`, a function of a module, in two processes of one group; what one raises is raised."""
    run_ranks(partial(_rank, work, arguments), 2, num_threads=1)


def _rank(work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        work(Ranks.here(), *arguments)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
