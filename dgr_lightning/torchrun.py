"""What torchrun says in the environment of the processes that it starts; `crew` is what is made of them."""

from __future__ import annotations

import os

# What torch's env:// and Lightning look for, too.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID")


def is_there() -> bool:
    """Whether torchrun, or anything that sets the same variables, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process is the one that reads the command line."""
    return os.environ.get("RANK", "0") == "0"


def size() -> tuple[int, int]:
    """Returns the devices of a machine and the number of machines, as torchrun was told."""
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local
