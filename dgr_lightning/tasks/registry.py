"""Finds a task by its name: the benchmarks that come with the project, and those that a user names as `package.module:NAME`.

A benchmark is a file of `tasks/benchmarks/` with one `Task` or several; no list names it. A task from outside is called by its
`Task.name` in files, figures and `evaluation.path.<name>`; only `evaluation.tasks` and `probes.tasks` say where it is defined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module

from dgr_lightning.errors import UserError
from dgr_lightning.registry import Registry
from dgr_lightning.tasks import benchmarks
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.tasks.task import Task


class Tasks(Mapping[str, Task]):
    """Name → task. The project's own can be listed; a name with a colon is imported when it is looked up."""

    _files: Registry[Task] = Registry("tasks", benchmarks.__name__, "TASK")

    def __getitem__(self, name: str) -> Task:
        """Returns a task.

        Raises:
            KeyError: no task of the project has this name.
            UserError: a name from outside cannot be imported, or is not a `Task`.
        """
        if not self._files.is_outside(name):
            return self._shipped[name]
        task = self._files.get(name)
        if not isinstance(task, Task):
            raise UserError(f"tasks={name}: expected a dgr_lightning.tasks.task.Task, found {type(task).__name__}.")
        return task

    def outside_code(self, name: str) -> dict[str, str]:
        """Returns `{"code": …}` for a task from outside, as `Registry.outside_code` does; {} for the project's own."""
        return self._files.outside_code(name)

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the project's tasks: reasoning ones first, then harmful, then benign."""
        return iter(self._shipped)

    def __len__(self) -> int:
        """Number of the project's tasks."""
        return len(self._shipped)

    @cached_property
    def _shipped(self) -> dict[str, Task]:
        modules = [import_module(f"{benchmarks.__name__}.{name.replace('-', '_')}") for name in self._files.names()]
        found = [task for module in modules for task in vars(module).values() if isinstance(task, Task)]
        return {task.name: task for kind in KINDS for task in found if task.kind == kind}


TASKS = Tasks()
