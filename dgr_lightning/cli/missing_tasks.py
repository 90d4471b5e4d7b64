"""Tasks whose data cannot be read: refused at the door, in one message, or left out where that is asked for.

The data of a task may be out of reach (no hub answers), gated (the hub answers, but not to this account), gone from the hub, or
on no hub at all; what helps differs. Tasks are settled here, before anything names or hashes them, so that base and tuned model
are measured on the same ones and a hash holds what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape

from dgr_lightning.config import EvaluationConfig, ProbesConfig
from dgr_lightning.console import say
from dgr_lightning.data.hub import ABSENT, GATED, READY, UNREACHABLE, dataset_access
from dgr_lightning.errors import UserError
from dgr_lightning.models.hub import unreachable
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import Task

HOMELESS = "on no hub"

NO_HEADLINE = "Their kinds have no headline."

Unreadable = Mapping[str, Sequence[Task]]
"""Why tasks cannot be read → the tasks."""


def settle_tasks(evaluation: EvaluationConfig) -> None:
    """Checks that the data of all tasks can be read, and leaves out those of which it cannot with `evaluation.missing=skip`.

    Args:
        evaluation: `tasks`, `skipped` and `by_task` are changed in place.

    Raises:
        UserError: a task cannot be read and is not to be skipped, or none can be read.
    """
    unreadable = _unreadable(evaluation.tasks, evaluation.path)
    missing = [task.name for tasks in unreadable.values() for task in tasks]
    why = f"{_reasons(unreadable)} {_local_copies('evaluation', unreadable)}"
    if missing and evaluation.missing == "fail":
        raise UserError(f"{why}, run the others with evaluation.missing=skip, or name other tasks with evaluation.tasks=[…].")
    skipped = [name for name in evaluation.tasks if TASKS[name].name in missing]
    if missing and len(skipped) == len(evaluation.tasks):
        raise UserError(f"evaluation.missing=skip leaves no task to measure. {why}.")
    if missing:
        say(f"[yellow]not measured: {', '.join(missing)}. {escape(_reasons(unreadable))} {NO_HEADLINE}[/]")
    evaluation.skipped = skipped
    evaluation.tasks = [name for name in evaluation.tasks if name not in skipped]
    _compare_sizes(evaluation)
    measured = {TASKS[name].name for name in evaluation.tasks}
    evaluation.by_task = {name: settings for name, settings in evaluation.by_task.items() if name in measured}


def _compare_sizes(evaluation: EvaluationConfig) -> None:
    """Says where a local copy holds another number of problems than the task as it is published."""
    for name in evaluation.tasks:
        task = TASKS[name]
        if task.size is None or task.name not in evaluation.path:
            continue
        try:
            found = len(load_problems(name, path=evaluation.path[task.name]))
        except UserError:
            continue  # whoever reads it for its problems says what is wrong with it
        if found != task.size:
            counts = f"evaluation.path.{task.name} holds {found:,} problems, {task.name} as published {task.size:,}"
            say(f"[yellow]{counts}: its figures are not those of the whole set[/]")


def drop_probes(probes: ProbesConfig, *, asked_for: bool) -> None:
    """Leaves out probe tasks whose problems cannot be read, and says so; there are fewer curves then.

    Args:
        probes: `tasks` is changed in place, so that the run hash holds what was measured.
        asked_for: the user named the tasks: then a missing one is an error.

    Raises:
        UserError: a task that was asked for cannot be read.
    """
    unreadable = _unreadable(probes.tasks, probes.path) if probes.every != 0 else {}
    if not unreadable:
        return
    missing = [task.name for tasks in unreadable.values() for task in tasks]
    if asked_for:
        raise UserError(f"{_reasons(unreadable, 'probe tasks')} {_local_copies('probes', unreadable)}.")
    probes.tasks = [name for name in probes.tasks if TASKS[name].name not in missing]
    why = f"{_reasons(unreadable, 'probe tasks')} {_local_copies('probes', unreadable)}."
    say(f"no curves for {', '.join(missing)}. {escape(why)}")


def _unreadable(names: Sequence[str], paths: Mapping[str, str]) -> Unreadable:
    """Returns the tasks without a local copy whose data is neither generated, nor cached, nor handed out by the hub."""
    found: dict[str, list[Task]] = {}
    for task in (TASKS[name] for name in names):
        if task.make is not None or task.name in paths:
            continue
        subsets = task.subset if isinstance(task.subset, tuple) else (task.subset,)
        why = HOMELESS if task.hub_id is None else dataset_access(task.hub_id, task.revision, subsets)
        if why != READY:
            found.setdefault(why, []).append(task)
    return found


def _reasons(unreadable: Unreadable, what: str = "tasks of the evaluation") -> str:
    """Returns a sentence or two a reason: why these tasks cannot be read, and what helps."""
    return " ".join(_sentences(unreadable, what))


def _sentences(unreadable: Unreadable, what: str) -> Iterator[str]:
    if tasks := unreadable.get(UNREACHABLE):
        yield f"{unreachable()}, and these {what} are not in the local cache: {_names(tasks)}."
    if tasks := unreadable.get(GATED):
        pages = ", ".join(f"{task.name} ({task.page})" for task in tasks)
        yield (
            f"The hub hands out the data of these {what} only to accounts that have accepted their terms: {pages}. Accept them "
            "there, then log in with `hf auth login`, or set HF_TOKEN."
        )
    if tasks := unreadable.get(ABSENT):
        yield f"The hub has no data of these {what}: {', '.join(f'{task.name} ({task.page})' for task in tasks)}."
    if tasks := unreadable.get(HOMELESS):
        places = ", ".join(f"{task.name} ({task.page})" if task.page else task.name for task in tasks)
        yield f"The data of these {what} is on no hub: {places}."


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(task.name for task in tasks)


def _local_copies(section: str, unreadable: Unreadable) -> str:
    names = [task.name for tasks in unreadable.values() for task in tasks]
    return "Use local copies: " + " ".join(f"{section}.path.{name}=<file>" for name in names)
