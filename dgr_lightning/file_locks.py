"""Locks on files by which processes that write to the same place wait for each other; Linux and macOS have them.

flock(2) belongs to the open file: the kernel lets go of it with the last process that has it open, however that process ends.
"""

from __future__ import annotations

import errno
from types import ModuleType
from typing import IO, Any

from dgr_lightning.errors import UserError

# A network file system without such locks, or without the service that keeps them.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


def require_file_locks() -> None:
    """Checks that this system has such locks, without which no run directory and no store can be written.

    Raises:
        UserError: it has none: Windows.
    """
    _fcntl()


def take_lock(file: IO[Any], *, wait: bool) -> bool:
    """Takes the lock of an open file, and returns whether it is taken.

    Args:
        file: open; closing it releases the lock.
        wait: where another process has it, wait for it instead of returning False.

    Raises:
        UserError: this system, or the file system, has no such locks.
    """
    fcntl = _fcntl()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"{file.name}: its file system has no file locks ({error.strerror}), which keep two processes from writing one "
            "file. Mount it with them (Lustre: -o flock), or name another folder (hydra.run.dir=, DGR_CACHE=)."
        ) from error
    return True


def _fcntl() -> ModuleType:
    try:
        import fcntl
    except ImportError:
        raise UserError(
            "Windows has no file locks of the kind that a run needs (fcntl): run this inside WSL. --help, --version, "
            "--cfg job and plan=true need none."
        ) from None
    return fcntl
