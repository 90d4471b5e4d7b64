"""Threads of torch on a CPU that other processes use as well.

torch's wheels for the CPU compute with libgomp, whose threads spin at every barrier. On idle cores that is the fastest way to
wait. But as soon as one other process is busy, a thread that computes loses its core to one that only waits, and a step takes
four to twelve times as long. A short spin keeps most of the speed and gives the core back. docs/performance.md has what was
measured.
"""

from __future__ import annotations

import os

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""How threads wait, in the dialects of libgomp, libomp and libiomp5; a user who has set one of them has chosen."""

# libgomp's unit is a turn of its loop, libomp's and libiomp5's (macOS, conda) a millisecond.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def usable_cores() -> int:
    """Returns the number of cores that this process may use; where the system does not say (macOS), of all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen_by_user() -> bool:
    """Whether a variable has a value that `spin_shortly` does not give it."""
    return any(os.environ.get(name, _SHORT_SPIN.get(name)) != _SHORT_SPIN.get(name) for name in VARIABLES)


def spin_shortly() -> None:
    """Has the threads of this process, and of those that it starts, spin for a short time only; call it before torch is loaded.

    It sets environment variables that the runtime reads as it is loaded, and none where the user has set one of them.
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ.update(_SHORT_SPIN)
