"""The points of a sweep, wherever a launcher runs them, and the outcome of each.

Joblib runs points in other processes, Slurm on other machines: a list in the parent would stay empty. So every point leaves its
outcome as a file in a folder of the cache, which all of them see, and the parent reads the folder when the sweep is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.cache import cache_dir, require_cache
from dgr_lightning.cli.failures import BAD_CONFIG, DONE, FAILED, show_error
from dgr_lightning.files import read_json, write_json
from dgr_lightning.writing import CannotWrite


class PointFailed(RuntimeError):
    """A point failed and has shown why. Launchers and sweepers go by it; the other points still run."""


@dataclass(frozen=True)
class PointOutcome:
    """The outcome of a point.

    Attributes:
        number: of the point, counted from 0.
        overrides: that tell it from the others.
        code: the exit code that it would have had by itself.
        message: why it failed, in a line; empty where it did not.
        directory: of its run; empty where it did not come as far as that.
        shown: whether its run was finished before, and has only been shown.
    """

    number: int
    overrides: list[str]
    code: int
    message: str = ""
    directory: str = ""
    shown: bool = False

    @property
    def values(self) -> dict[str, str]:
        """The values of its keys and groups, as they are written."""
        return {key: value for key, _, value in (override.partition("=") for override in self.overrides)}

    @property
    def status(self) -> str:
        """`done`, `shown`, or `failed`."""
        return "failed" if self.code != DONE else "shown" if self.shown else "done"


@contextmanager
def failures_shown_once() -> Iterator[None]:
    """Keeps Hydra from printing that a job raised, with its overrides as a Python list: the point has shown why."""
    from hydra.core import utils

    job_return: Any = utils.JobReturn
    printing: property = job_return.return_value

    def value(job: Any) -> Any:
        if job.status is utils.JobStatus.FAILED:
            raise job._return_value
        return job._return_value

    job_return.return_value = property(value, printing.fset)
    try:
        yield
    finally:
        job_return.return_value = printing


@contextmanager
def outcome_folder() -> Iterator[Path]:
    """A folder for the outcomes of one sweep, deleted afterwards."""
    import shutil
    import tempfile
    from uuid import uuid4

    require_cache()
    folder = cache_dir() / "sweeps" / uuid4().hex
    try:
        folder.mkdir(parents=True)
    except OSError:  # a cache that can only be read: then points have to run on this machine
        folder = Path(tempfile.mkdtemp(prefix="dgr-sweep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_outcome(folder: Path, outcome: PointOutcome) -> bool:
    """Leaves the outcome of a point for the parent; returns False where there is no room for it."""
    try:
        write_json(folder / f"{outcome.number:06d}.json", asdict(outcome))
    except CannotWrite:
        return False
    return True


def read_outcomes(folder: Path) -> list[PointOutcome]:
    """Returns the outcomes of all points that have ended, in the order of the points."""
    return [PointOutcome(**read_json(path)) for path in sorted(folder.glob("*.json"))]


def sweep_exit_code(outcomes: list[PointOutcome]) -> int:
    """Shows which points failed, and returns the exit code of the sweep: 2 where bad input is all that failed, else 1."""
    failed = [outcome for outcome in outcomes if outcome.code != DONE]
    if not failed:
        return DONE
    listed = "".join(f"\n  point {outcome.number + 1} ({' '.join(outcome.overrides)}): {outcome.message}" for outcome in failed)
    others = "; the others are done" if len(failed) < len(outcomes) else ""
    show_error(f"{len(failed)} of {len(outcomes)} points failed{others}.{listed}", "sweep")
    return BAD_CONFIG if all(outcome.code == BAD_CONFIG for outcome in failed) else FAILED


def remove_unused(root: Path) -> None:
    """Deletes the folder of a sweep that nothing but Hydra's own file lies in, since no point came as far as a run."""
    import shutil

    if root.is_dir() and {entry.name for entry in root.iterdir()} <= {"multirun.yaml"}:
        shutil.rmtree(root, ignore_errors=True)
