"""Child processes: none outlives the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Has the kernel kill the calling process when its parent dies, however that ends; for children to call first.

    Linux only (prctl(2), PR_SET_PDEATHSIG), elsewhere nothing happens. The signal follows the *thread* that started the
    child: start children from a thread that lives as long as the process does.

    Args:
        parent: process id that the child was started from, where the starter passed it on. A child whose parent died before
            this call had effect is then ended here.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
