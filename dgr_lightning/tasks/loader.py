"""Problems of a task, from the hub, from a local copy, or generated; and the hash of their content.

The split `evaluation` is reported. The split `probe` is for curves and for any choice that is made by looking at results, and
shares no problem with the reported ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgr_lightning.data.file_readers import read_rows
from dgr_lightning.data.hub import dataset_rows
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import content_hash, file_hashes, sorted_by_hash
from dgr_lightning.tasks.prompt import Question, fill
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, PROBE, BadRow, Problem, Task, fingerprint

TASKS_VERSION = 1
"""Hashed with every task: raise it whenever this module builds another problem from the same row."""

SECTIONS = {EVALUATION: "evaluation", PROBE: "probes"}
"""Our split → the section of the config that names its tasks."""


def load_problems(
    name: str,
    *,
    split: str = EVALUATION,
    path: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    prompt: str | None = None,
) -> list[Problem]:
    """Returns the problems of a task's split, in the order of its file.

    Args:
        name: a name that `TASKS` knows.
        split: `evaluation` or `probe`.
        path: local copy (jsonl, json, csv, tsv, parquet) to read instead of the hub.
        limit: at most so many, drawn by the hash of seed and id: a larger limit contains the draw of a smaller one.
        seed: of that draw.
        prompt: template of the user's message in place of the task's own, as `Task.prompt`.

    Raises:
        UserError: the problems cannot be read, or a row holds none; the message names the key that takes a local copy.
    """
    task = TASKS[name]
    problems = _problems(task, split, *_rows(task, split, path), prompt or task.prompt)
    if limit is None or limit >= len(problems):
        return problems
    chosen = {problem.id for problem in sorted_by_hash(problems, lambda problem: f"{seed} {problem.id}")[:limit]}
    return [problem for problem in problems if problem.id in chosen]


def task_hash(name: str, split: str, path: str | None = None) -> str:
    """Returns a hash of the content of a task's problems, never of where they lie.

    A local copy counts by its bytes, a hub dataset by id and commit, and by its problems where no commit is pinned; problems
    that are generated count by the version of the code that does it. The version of a task that reads its rows counts from the
    second on.
    """
    task = TASKS[name]
    if task.make is not None:
        source: list[Any] = ["recipe", task.version]
    elif path is not None:
        source = file_hashes(Path(path).expanduser())
    elif task.revision is not None:
        source = [task.hub_id, task.revision, task.subset, task.splits[split]]
    else:
        source = [[problem.id, problem.prompt, problem.gold] for problem in load_problems(name, split=split)]
    version = [] if task.make is not None or task.version == 1 else [{"version": task.version}]
    return content_hash(TASKS_VERSION, task.name, split, source, *version, *TASKS.outside_code(name).values())


def task_hashes(names: Sequence[str], split: str, paths: Mapping[str, str]) -> list[str]:
    """Returns the `task_hash` of several tasks; `paths` holds local copies by the tasks' own names."""
    return [task_hash(name, split, paths.get(TASKS[name].name)) for name in names]


def _rows(task: Task, split: str, path: str | None) -> tuple[Sequence[Any], str]:
    """Returns the rows of a task's split and, for messages, where they come from."""
    key = f"{SECTIONS[split]}.path.{task.name}"
    if task.make is not None:
        return task.make(split), task.name
    if path is not None:
        return read_rows(Path(path).expanduser()), f"{key}={path}"
    if task.hub_id is None:
        raise UserError(f"{key} is not set: {task.name} is on no hub. Name a local copy (jsonl, json, csv, tsv, parquet).")
    rows = dataset_rows(task.hub_id, task.revision, task.splits[split], subset=task.subset, path_key=key)
    return rows, f"{task.hub_id}, split {task.splits[split]}"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problems(task: Task, split: str, rows: Sequence[Any], where: str, template: str) -> list[Problem]:
    """Returns the problems in a task's rows. A bad row is an error: half of a benchmark is another benchmark."""
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
        question = Question(*read)
        prompt = fill(template, question)
        if not all(_is_encodable(text) for text in (question.part, prompt, question.gold or "", question.category or "")):
            raise UserError(f"{where}, row {index}: holds half of a surrogate pair, which is no character.")
        problem = Problem(f"{prefix}-{question.part}", task.kind, prompt, question.gold, question.text, question.category)
        problems.append(problem)
    if not problems:
        raise UserError(f"{where}: none of its {len(rows)} rows is a problem of {task.name}.")
    if len({problem.id for problem in problems}) < len(problems):
        raise UserError(f"{where}: two rows have one id; the ids of {task.name} must differ.")
    return problems
