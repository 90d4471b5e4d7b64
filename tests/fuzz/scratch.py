"""A folder for the files that a target reads, in memory where the system has one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")


def scratch_folder() -> Path:
    """Returns an empty folder that is deleted when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="dgr-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def entries(folder: Path) -> set[str]:
    """Returns the names of everything in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
