"""XSTest's safe half: 250 prompts that only sound dangerous, to measure over-refusal (Röttger et al. 2024, arXiv 2308.01263).

Its unsafe contrast prompts are no part of this task.
"""

from __future__ import annotations

from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell


def _read(row: TaskRow, index: int) -> tuple[str, str, None] | None:
    label = cell(row, "label")
    if label not in ("safe", "unsafe"):
        raise BadRow(f"column 'label' holds {label!r}, neither safe nor unsafe")
    if label == "unsafe":
        return None
    return str(row.get("id") or index), cell(row, "prompt"), None


XSTEST = Task(
    name="xstest",
    kind="benign",
    read=_read,
    splits={EVALUATION: "train"},
    outputs="short",
    hub_id="Paul/XSTest",
    revision="f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
)
