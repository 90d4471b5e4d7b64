"""JailbreakBench: 100 harmful behaviours and their 100 harmless twins (Chao et al. 2024, arXiv 2404.01318).

The harmless half is also the over-refusal curve during training. The two halves are two files with the same columns,
`harmful-behaviors.csv` and `benign-behaviors.csv`: a local copy of each task is its own half.
"""

from __future__ import annotations

from dgr_lightning.tasks.prompt import Question
from dgr_lightning.tasks.task import EVALUATION, PROBE, Task, TaskRow, cell, optional_cell


def _read(row: TaskRow, index: int) -> Question:
    return Question(str(index), cell(row, "Goal", "goal", "prompt"), None, category=optional_cell(row, "Category"))


def _task(name: str, kind: str, splits: dict[str, str]) -> Task:
    return Task(
        name=name,
        kind=kind,
        read=_read,
        splits=splits,
        outputs="short",
        hub_id="JailbreakBench/JBB-Behaviors",
        revision="886acc352a31533ffbcf4ef22c744658688086fc",
        subset="behaviors",
        columns=("Goal/goal/prompt", "Category"),
        licence="MIT",
        size=100,
    )


JAILBREAKBENCH = _task("jailbreakbench", "harmful", {EVALUATION: "harmful"})
JAILBREAKBENCH_BENIGN = _task("jailbreakbench_benign", "benign", {EVALUATION: "benign", PROBE: "benign"})
