"""StrongREJECT: 313 harmful requests that a safe model refuses (Souly et al. 2024, arXiv 2402.10260).

The hub copy is gated (its terms are accepted once, with an account) and calls the column `prompt`; the authors' CSV calls it
`forbidden_prompt`. Both are read.
"""

from __future__ import annotations

from dgr_lightning.tasks.prompt import Question
from dgr_lightning.tasks.task import EVALUATION, Task, TaskRow, cell, optional_cell


def _read(row: TaskRow, index: int) -> Question:
    return Question(str(index), cell(row, "forbidden_prompt", "prompt"), None, category=optional_cell(row, "category"))


STRONGREJECT = Task(
    name="strongreject",
    kind="harmful",
    read=_read,
    splits={EVALUATION: "train"},
    outputs="short",
    hub_id="walledai/StrongREJECT",
    revision="df54272b395ce9e584d2f8140519935425d8549f",
    columns=("forbidden_prompt/prompt", "category"),
    gated=True,
    licence="MIT",
    size=313,
)
