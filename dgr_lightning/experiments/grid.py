"""A grid of runs: started as one sweep of train.py, and read back from the directories of its finished runs.

The runs lie in runs/<name> of the working directory, where train.py puts them. A finished point is not run again, so the same
command continues an interrupted grid.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.files import read_json
from dgr_lightning.pipeline.run_directory import read_described
from dgr_lightning.report.summary import SUMMARY

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


@dataclass(frozen=True)
class FinishedRun:
    """A run directory whose summary.json is written.

    Attributes:
        directory: of the run.
        config: its resolved config.yaml.
        summary: its summary.json.
        finished: when that was written, in seconds since the epoch.
    """

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    finished: float

    def hashed(self) -> dict[str, Any]:
        """Returns the content of the run hash: every key that determines the result, with hashes of model and data."""
        return read_described(self.directory)


def arguments(documentation: str, name: str, files: str) -> argparse.ArgumentParser:
    """Returns a parser of the options that all grids have.

    Args:
        documentation: docstring of the script, whose first line describes it.
        name: default of `--name`.
        files: what the script writes, for the help of `--out`.
    """
    parser = argparse.ArgumentParser(description=documentation.partition("\n")[0])
    parser.add_argument("--seeds", type=integers, default=(1, 2, 3), help="seeds, separated by commas")
    parser.add_argument("--name", default=name, help="the runs lie in runs/<name>")
    parser.add_argument("--out", type=Path, default=Path("docs"), help=f"folder for {files}")
    parser.add_argument("--draw", action="store_true", help="run nothing: read the points that are finished")
    parser.add_argument("overrides", nargs="*", help="after --: overrides of every point, such as data=micro-r1act")
    return parser


def integers(text: str) -> tuple[int, ...]:
    """Returns integers that are separated by commas."""
    return tuple(int(part) for part in text.split(","))


def numbers(text: str) -> tuple[float, ...]:
    """Returns numbers that are separated by commas."""
    return tuple(float(part) for part in text.split(","))


def override(key: str, values: Sequence[Any]) -> str:
    """Returns the override that sweeps a key over values."""
    return f"{key}={','.join(map(str, values))}"


def sweep(name: str, overrides: Sequence[str]) -> bool:
    """Runs `python train.py -m name=… <overrides>` to its end; returns whether every point finished."""
    command = [sys.executable, str(TRAIN), "-m", f"name={name}", *overrides]
    print(" ".join(command), flush=True)
    return subprocess.run(command, check=False).returncode == 0


def finished_runs(folder: Path) -> list[FinishedRun]:
    """Returns the finished runs of a folder in the order in which they finished."""
    runs = []
    for path in folder.glob(f"*/{SUMMARY}"):
        config = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
        runs.append(FinishedRun(path.parent, config, read_json(path), path.stat().st_mtime))
    return sorted(runs, key=lambda run: (run.finished, run.directory))
