"""Folders that are made once, whoever needs them first: a miniature that is grown, a model that is put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dgr_lightning.file_locks import take_lock
from dgr_lightning.files import whole_folder


def make_once(folder: Path, make: Callable[[Path], None]) -> bool:
    """Makes a folder unless it is there; a second process waits for the first. Returns whether it was made now.

    Args:
        folder: appears when it is complete.
        make: writes into the folder that it is given, which has another name until then.
    """
    if folder.exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as file:
        take_lock(file, wait=True)
        if folder.exists():
            return False
        with whole_folder(folder) as partial:
            make(partial)
    return True
