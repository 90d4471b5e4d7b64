"""Checks the choice of tasks before anything is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from dgr_lightning.config import EvaluationConfig, ProbesConfig
from dgr_lightning.errors import UserError
from dgr_lightning.files import check_plain, exists, local_path
from dgr_lightning.hashes import file_hash
from dgr_lightning.tasks.loader import SECTIONS
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, PROBE, Task


def check_tasks(evaluation: EvaluationConfig, probes: ProbesConfig, language: str) -> None:
    """Checks the choice of tasks before anything is loaded.

    Args:
        evaluation: what is reported.
        probes: what curves are drawn over; not checked where `probes.every` is 0.
        language: the model's.

    Raises:
        UserError: an unknown task, one in another language, one without such a split, a path that does not exist or belongs to
            a task that is not chosen, or a probe over the problems that are reported; the message names the override.
    """
    reported = _check_section(EVALUATION, evaluation.tasks, evaluation.path, language)
    if probes.every == 0:
        return
    probed = _check_section(PROBE, probes.tasks, probes.path, language)
    for name, task in probed.items():
        if name in reported and task.splits[PROBE] == task.splits[EVALUATION]:
            others = ", ".join(_valid(PROBE, language, task.kind, without=list(reported)))
            raise UserError(
                f"probes.tasks: {name} has one split only, and evaluation.tasks reports it. Take it out of one of the two; "
                + (f"probe tasks of its kind: {others}." if others else "no other task of its kind has a probe split.")
            )
    files = {_content(path): name for name, path in evaluation.path.items()}
    for name, path in probes.path.items():
        if name in probed and _content(path) in files:
            raise UserError(
                f"probes.path.{name}={path}: the same problems as evaluation.path.{files[_content(path)]}. Curves are never "
                "drawn over what is reported; give the copy of another split."
            )


def _check_section(split: str, names: Sequence[str], paths: dict[str, str], language: str) -> dict[str, Task]:
    """Checks the tasks of one section of the config and returns them by their own names."""
    section = SECTIONS[split]
    tasks: dict[str, Task] = {}
    for name in names:
        task = _check_task(section, name, split, language)
        if task.name in tasks:
            raise UserError(f"{section}.tasks: {name} is the second task called {task.name}. Take one of them out.")
        tasks[task.name] = task
    for name, path in paths.items():
        key = f"{section}.path.{name}={path}"
        if name not in tasks:
            raise UserError(f"{key}: {name!r} is none of the chosen tasks ({section}.tasks=[{','.join(names)}]).")
        if tasks[name].make is not None:
            raise UserError(f"{key}: the problems of {name} are generated, not read; leave it out.")
        if not exists(local_path(path)):
            raise UserError(f"{key}: there is no such file (looked in {Path.cwd()}).")
        check_plain(local_path(path), key)
    return tasks


def _check_task(section: str, name: str, split: str, language: str) -> Task:
    valid = _valid(split, language)
    if name not in TASKS:
        near = difflib.get_close_matches(name, valid, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"{section}.tasks: no task {name!r}.{hint} Choose among {', '.join(valid)}, or package.module:NAME.")
    task = TASKS[name]
    if task.language != language:
        raise UserError(
            f"{section}.tasks: {name} is in the {task.language} language, the model speaks the {language} one. "
            f"Choose among {', '.join(valid)}."
        )
    if split not in task.splits:
        purpose = "is for curves only" if split == EVALUATION else "is reported only, it has no probe split"
        raise UserError(f"{section}.tasks: {name} {purpose}. Choose among {', '.join(valid)}.")
    return task


def _valid(split: str, language: str, kind: str | None = None, without: Sequence[str] = ()) -> list[str]:
    """Returns the names of the project's tasks that have a split and a language."""
    return [
        task.name
        for task in TASKS.values()
        if split in task.splits and task.language == language and kind in (None, task.kind) and task.name not in without
    ]


def _content(path: str) -> str:
    place = Path(path).expanduser()
    return str(place.resolve()) if place.is_dir() else file_hash(place)
