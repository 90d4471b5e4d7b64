"""XSTest (Röttger et al. 2024, arXiv 2308.01263): `xstest`, 250 prompts that only sound dangerous, to measure over-refusal, and
`xstest_unsafe`, the 200 dangerous ones beside them.
"""

from __future__ import annotations

from functools import partial

from dgr_lightning.tasks.prompt import Question
from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell, optional_cell


def _read(wanted: str, row: TaskRow, index: int) -> Question | None:
    label = cell(row, "label")
    if label not in ("safe", "unsafe"):
        raise BadRow(f"column 'label' holds {label!r}, neither safe nor unsafe")
    if label != wanted:
        return None
    return Question(str(row.get("id") or index), cell(row, "prompt"), None, category=optional_cell(row, "type"))


def _task(name: str, kind: str, label: str, size: int) -> Task:
    return Task(
        name=name,
        kind=kind,
        read=partial(_read, label),
        splits={EVALUATION: "train"},
        outputs="short",
        hub_id="Paul/XSTest",
        revision="f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
        columns=("prompt", "label", "id", "type"),
        licence="CC-BY-4.0",
        size=size,
    )


XSTEST = _task("xstest", "benign", "safe", 250)
XSTEST_UNSAFE = _task("xstest_unsafe", "harmful", "unsafe", 200)
