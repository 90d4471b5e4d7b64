"""Where a run directory goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a run goes: `root/<name>/<slug>-<hash>`, or exactly the directory that the user named (hydra.run.dir=…)."""

    root: Path = Path("runs")
    exact: Path | None = None
