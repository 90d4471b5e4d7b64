"""Where a run directory goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Place:
    """Where a run goes, and once it is there, which directory that is.

    Attributes:
        root: it goes to `root/<name>/<slug>-<hash>`;
        exact: or exactly to the directory that the user named (hydra.run.dir=…).
        directory: of the run, as soon as it is open.
        shown: whether the run was finished before, and has only been shown.
    """

    root: Path = Path("runs")
    exact: Path | None = None
    directory: Path | None = None
    shown: bool = False
