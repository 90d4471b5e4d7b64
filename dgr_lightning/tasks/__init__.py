"""The tasks: problems to reason about, requests to refuse, requests to answer. A benchmark a file.

Problems come from the hub, from a local copy, or from the miniature. The split `evaluation` is what is reported; the split
`probe` is for curves and for any choice that is made by looking, and holds none of the reported problems.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

from dgr_lightning.config import EvaluationConfig, ProbesConfig
from dgr_lightning.errors import UserError
from dgr_lightning.hub import dataset_rows
from dgr_lightning.records import content_hash, file_hash
from dgr_lightning.tables import read_rows
from dgr_lightning.tasks.advbench import ADVBENCH
from dgr_lightning.tasks.gsm8k import GSM8K
from dgr_lightning.tasks.jailbreakbench import JAILBREAKBENCH_BENIGN
from dgr_lightning.tasks.math500 import MATH500
from dgr_lightning.tasks.micro import MICRO_TASKS
from dgr_lightning.tasks.strongreject import STRONGREJECT
from dgr_lightning.tasks.task import EVALUATION, PROBE, BadRow, Problem, Task, fingerprint
from dgr_lightning.tasks.xstest import XSTEST

__all__ = ["EVALUATION", "PROBE", "TASKS", "Problem", "Task", "check_tasks", "load_problems", "task_content"]

TASKS_VERSION = 1
"""Part of every task's content: one more whenever this code makes another problem of the same row."""

TASKS = {task.name: task for task in (GSM8K, MATH500, STRONGREJECT, XSTEST, ADVBENCH, JAILBREAKBENCH_BENIGN, *MICRO_TASKS)}

_SECTIONS = {EVALUATION: "evaluation", PROBE: "probes"}


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
    key = f"{_SECTIONS[split]}.path.{name}"
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


def task_content(name: str, split: str, path: str | None = None) -> str:
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


def check_tasks(evaluation: EvaluationConfig, probes: ProbesConfig, language: str) -> None:
    """Checks the choice of tasks before anything is loaded.

    Args:
        evaluation: what is reported.
        probes: what curves are drawn over; held to nothing where `probes.every` is 0.
        language: the model's.

    Raises:
        UserError: an unknown task, one in another language, one without such a split, a path for a task that is not chosen or
            that is not there, or a probe over the problems that are reported; the message names the override.
    """
    _check_section(EVALUATION, evaluation.tasks, evaluation.path, language)
    if probes.every == 0:
        return
    _check_section(PROBE, probes.tasks, probes.path, language)
    for name in probes.tasks:
        if name in evaluation.tasks and TASKS[name].splits[PROBE] == TASKS[name].splits[EVALUATION]:
            raise UserError(
                f"probes.tasks: {name} has one split only, and evaluation.tasks reports it. Take it out of one of the two; "
                f"probe tasks of its kind: {', '.join(_valid(PROBE, language, TASKS[name].kind, without=evaluation.tasks))}."
            )
    reported = {_content(path): name for name, path in evaluation.path.items()}
    for name, path in probes.path.items():
        if name in probes.tasks and _content(path) in reported:
            raise UserError(
                f"probes.path.{name}={path}: the same problems as evaluation.path.{reported[_content(path)]}. Curves are never "
                "drawn over what is reported; give the copy of another split."
            )


def _check_section(split: str, names: list[str], paths: dict[str, str], language: str) -> None:
    section = _SECTIONS[split]
    valid = _valid(split, language)
    for name in names:
        if name not in TASKS:
            near = difflib.get_close_matches(name, valid, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"{section}.tasks: no task {name!r}.{hint} Choose among {', '.join(valid)}.")
        task = TASKS[name]
        if task.language != language:
            raise UserError(
                f"{section}.tasks: {name} is in the {task.language} language, the model speaks the {language} one. "
                f"Choose among {', '.join(valid)}."
            )
        if split not in task.splits:
            purpose = "is for curves only" if split == EVALUATION else "is reported only, it has no probe split"
            raise UserError(f"{section}.tasks: {name} {purpose}. Choose among {', '.join(valid)}.")
    for name, path in paths.items():
        key = f"{section}.path.{name}={path}"
        if name not in names:
            raise UserError(f"{key}: {name!r} is none of the chosen tasks ({section}.tasks=[{','.join(names)}]).")
        if TASKS[name].hub_id is None:
            raise UserError(f"{key}: the problems of {name} are made, not read; leave it out.")
        if not Path(path).expanduser().exists():
            raise UserError(f"{key}: there is no such file (looked in {Path.cwd()}).")


def _valid(split: str, language: str, kind: str | None = None, without: list[str] | None = None) -> list[str]:
    """Returns the names of the tasks that have a split and a language."""
    return [
        task.name
        for task in TASKS.values()
        if split in task.splits and task.language == language and kind in (None, task.kind) and task.name not in (without or [])
    ]


def _content(path: str) -> str:
    place = Path(path).expanduser()
    return str(place.resolve()) if place.is_dir() else file_hash(place)


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
