"""The checkpoints of a run as folders, `checkpoints/step-<optimizer steps>/`: which there are, and how they are deleted.

No torch in here: the command line deletes the checkpoints of a run that is whole.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from dgr_lightning.errors import UserError
from dgr_lightning.files import PARTIAL, exists, partial_of

FOLDER = "checkpoints"


class CheckpointFolder:
    """The folder of all checkpoints of a run. What is being written or deleted in it has another name than a whole one."""

    def __init__(self, path: Path) -> None:
        """Takes the folder, which need not exist.

        Raises:
            UserError: it is a file.
        """
        if exists(path) and not path.is_dir():
            raise UserError(f"{path}: a file, where checkpoints go. Delete it, or move it away.")
        self._path = path

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        names = [re.fullmatch(r"step-(\d+)", path.name) for path in self._path.glob("*")]
        return sorted(int(name[1]) for name in names if name)

    def of(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint."""
        return self._path / f"step-{step:08d}"

    def delete(self, step: int) -> None:
        """Deletes a checkpoint; one that is half deleted is not taken for a whole one."""
        os.replace(self.of(step), partial_of(self.of(step)))
        shutil.rmtree(partial_of(self.of(step)))

    def delete_leftovers(self) -> None:
        """Deletes what a process that died was writing or deleting."""
        for leftover in self._path.glob(f"*{PARTIAL}"):
            shutil.rmtree(leftover)

    def delete_all(self) -> None:
        """Deletes the folder with everything in it."""
        for step in self.steps():
            self.delete(step)
        if self._path.exists():
            shutil.rmtree(self._path)
