"""Two ranks that talk through gloo on this machine, for tests: started as a training's are."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.distributed.ranks import Ranks

T = TypeVar("T")


def on_two_ranks(work: Callable[..., T], *arguments: Any) -> T:
    """Calls `work(ranks, *arguments)`, a function of a module, in two processes; returns what the first one returned."""
    return run_ranks(partial(_rank, work, arguments), 2, num_threads=1)


def _rank(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        result = work(Ranks.here(), *arguments)
        distributed.barrier()
        return result
    finally:
        distributed.destroy_process_group()
