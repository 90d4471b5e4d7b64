"""What torchrun says in the environment of the processes that it starts; `crew` is what is made of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from torch.distributed import Store

# What torch's env:// and Lightning look for, too.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID")

# Of this project: which corner of the agent's store belongs to the stage that a process is a rank of.
STAGE = "DGR_STAGE"


def is_active() -> bool:
    """Whether torchrun, or anything that sets the same variables, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process is the one that reads the command line."""
    return os.environ.get("RANK", "0") == "0"


def size() -> tuple[int, int]:
    """Returns the devices of a machine and the number of machines, as torchrun was told."""
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def agent_store(timeout: timedelta | None = None) -> Store:
    """Returns the store that the agents keep for what they start, or that the first process keeps where they keep none."""
    from torch.distributed import TCPStore
    from torch.distributed.constants import default_pg_timeout

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return TCPStore(
        host,
        port,
        is_master=not served and is_first(),
        timeout=timeout or default_pg_timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )


def stage_store() -> Store:
    """Returns the corner of the agent's store in which the ranks of this stage meet."""
    from torch.distributed import PrefixStore

    return PrefixStore(os.environ.get(STAGE, "dgr"), agent_store())
