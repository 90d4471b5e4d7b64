"""The environment of a process that torchrun started: its variables, and the store that its agents keep."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from torch.distributed import Store

# torch's env:// rendezvous and Lightning read them, too.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID")

# A variable of this project: the namespace in the agent's store under which the ranks of a stage rendezvous.
NAMESPACE = "DGR_STORE_NAMESPACE"

# Another: torchrun's number of the node, counted from 0, in a process that is the only one of its node in a job.
NODE = "DGR_NODE"


def is_active() -> bool:
    """Whether torchrun, or anything that sets the same variables, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process is the driver, which reads the command line."""
    return os.environ.get("RANK", "0") == "0"


def size() -> tuple[int, int]:
    """Returns the processes per machine and the number of machines that torchrun was started with."""
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def agent_store(timeout: timedelta | None = None) -> Store:
    """Returns the store that the agents keep for their workers; if they keep none, the first process does."""
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
    """Returns the namespace of the agent's store in which the ranks of this stage rendezvous."""
    from torch.distributed import PrefixStore

    return PrefixStore(os.environ.get(NAMESPACE, "dgr"), agent_store())
