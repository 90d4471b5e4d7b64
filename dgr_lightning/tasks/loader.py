"""Problems of a task, from the hub, from a local copy, or from the miniature.

The split `evaluation` is reported; the split `probe` is for curves and for any choice that is made by looking, and holds none
of the reported problems.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dgr_lightning.data.hub import dataset_rows
from dgr_lightning.data.readers import read_rows
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.tasks.registry import TASKS, TASKS_VERSION
from dgr_lightning.tasks.task import EVALUATION, PROBE, BadRow, Problem, Task, fingerprint

SECTIONS = {EVALUATION: "evaluation", PROBE: "probes"}


def load_problems(
    name: str, *, split: str = EVALUATION, path: str | None = None, limit: int | None = None, seed: int = 0
) -> list[Problem]:
    """Returns the problems of a task's split, in the order of its file.

    Args:
        name: one of `TASKS`.
        split: `evaluation` or `probe`.
        path: local copy (jsonl, json, csv, tsv, parquet) to read instead of the hub.
        limit: at most so many, chosen by the hash of seed and id: a larger limit holds all of a smaller one's.
        seed: drives that choice.

    Raises:
        UserError: the problems cannot be had, or a row holds none; the message names the key that takes a local copy.
    """
    task = TASKS[name]
    key = f"{SECTIONS[split]}.path.{name}"
    if task.hub_id is None:
        from dgr_lightning.micro import sets

        rows: list[Any] = sets.problems(name, split)
        where = name
    elif path is not None:
        rows = read_rows(Path(path).expanduser())
        where = f"{key}={path}"
    else:
        rows = dataset_rows(task.hub_id, task.revision, task.splits[split], subset=task.subset, path_key=key)
        where = f"{task.hub_id}, split {task.splits[split]}"
    problems = _problems(task, split, rows, where)
    if limit is None or limit >= len(problems):
        return problems
    ranked = sorted(problems, key=lambda problem: hashlib.sha256(f"{seed} {problem.id}".encode()).digest())
    chosen = {problem.id for problem in ranked[:limit]}
    return [problem for problem in problems if problem.id in chosen]


def task_hash(name: str, split: str, path: str | None = None) -> str:
    """Returns a hash of what the problems of a task are, never of where they lie.

    A local copy counts by its bytes, a hub dataset by id and commit, and by its problems where no commit is pinned.
    """
    task = TASKS[name]
    if task.hub_id is None:
        from dgr_lightning.micro.sets import VERSION

        source: list[Any] = ["recipe", VERSION]
    elif path is not None:
        place = Path(path).expanduser()
        files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
        source = [[file.relative_to(place).as_posix(), file_hash(file)] for file in files]
    elif task.revision is not None:
        source = [task.hub_id, task.revision, task.subset, task.splits[split]]
    else:
        source = [[problem.id, problem.prompt, problem.gold] for problem in load_problems(name, split=split)]
    return content_hash(TASKS_VERSION, name, split, source)


def _problems(task: Task, split: str, rows: list[Any], where: str) -> list[Problem]:
    """Returns the problems in a task's rows; a bad row is an error, for a benchmark in part is another benchmark."""
    prefix = task.name if split == EVALUATION else f"{task.name}-{split}"
    left_out = task.left_out.get(split, frozenset())
    problems = []
    for index, row in enumerate(rows):
        try:
            read = task.read(row, index)
        except BadRow as error:
            raise UserError(f"{where}, row {index}: not a row of {task.name}: {error}.") from error
        if read is None or fingerprint(read[1]) in left_out:
            continue
        part, prompt, gold = read
        problems.append(Problem(f"{prefix}-{part}", task.kind, prompt, gold))
    if not problems:
        raise UserError(f"{where}: none of its {len(rows)} rows is a problem of {task.name}.")
    if len({problem.id for problem in problems}) < len(problems):
        raise UserError(f"{where}: two rows have one id; the ids of {task.name} must differ.")
    return problems
