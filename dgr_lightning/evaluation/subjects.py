"""The subjects of an evaluation: the models of a run, and where their outputs lie in the run directory."""

from __future__ import annotations

from pathlib import Path

BASE = "base"
"""The model before training; the only one of a run of evaluate.py."""

TUNED = "tuned"
"""The model after training."""

SUBJECTS = (BASE, TUNED)
"""In the order in which results show them; also their keys in summary.json."""


def outputs_folder(run_dir: Path, subject: str) -> Path:
    """Returns the folder of a subject's outputs, a file a task."""
    return run_dir / "evaluation" / subject


def outputs_file(run_dir: Path, subject: str, task: str) -> Path:
    """Returns the JSONL of a subject's outputs on a task, a line a sample."""
    return outputs_folder(run_dir, subject) / f"{task}.jsonl"
