"""Two ranks that talk through gloo on this machine, for tests."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def on_two_ranks(work: Callable[..., None], *arguments: Any) -> None:
    """Calls `work(rank, *arguments)`, a function of a module, in two new processes of one group; what one raises is raised."""
    import torch.multiprocessing as processes

    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_rank, (str(Path(folder) / "store"), work, arguments), nprocs=2)


def _rank(rank: int, store: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    try:
        work(rank, *arguments)
    finally:
        distributed.destroy_process_group()
