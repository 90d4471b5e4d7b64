"""The table of docs/evaluation.md: `python -m dgr_lightning.tasks.table` prints it, a test holds the page to it."""

from __future__ import annotations

from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, PROBE, Task

HEADINGS = ("task", "kind", "problems", "data", "columns", "prompt", "grader", "licence")


def task_table() -> str:
    """Returns the tasks that read their rows, a line of Markdown each."""
    rows = [_cells(task) for task in TASKS.values() if task.make is None]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [HEADINGS, ("---",) * len(HEADINGS), *rows])


def _cells(task: Task) -> tuple[str, ...]:
    uses = "" if PROBE not in task.splits else " (also a probe)" if EVALUATION in task.splits else " (a probe)"
    return (
        f"`{task.name}`",
        task.kind + uses,
        "?" if task.size is None else f"{task.size:,}",
        _data(task),
        ", ".join(f"`{column}`" for column in task.columns),
        task.prompt_source,
        task.grader or "the judge",
        task.licence,
    )


def _data(task: Task) -> str:
    if task.hub_id is None:
        return f"on no hub: {task.home}"
    subsets = task.subset if isinstance(task.subset, tuple) else (task.subset,) if task.subset else ()
    commit = f" at `{task.revision[:7]}`" if task.revision else ", default branch"
    parts = ", ".join([*subsets, task.splits.get(EVALUATION) or task.splits[PROBE]])
    return f"[{task.hub_id}]({task.page}){commit} ({parts})" + (", **gated**" if task.gated else "")


if __name__ == "__main__":
    print(task_table())
