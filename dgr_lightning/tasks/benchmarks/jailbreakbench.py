"""JailbreakBench's benign half: 100 harmless twins of its harmful behaviours (Chao et al. 2024, arXiv 2404.01318).

For the over-refusal curve during training; the reported figure is XSTest's. A local copy is `benign-behaviors.csv`: the file
of the harmful half has the same columns, and is not this task.
"""

from __future__ import annotations

from dgr_lightning.tasks.task import PROBE, Task, TaskRow, cell


def _read(row: TaskRow, index: int) -> tuple[str, str, None]:
    return str(index), cell(row, "Goal"), None


JAILBREAKBENCH_BENIGN = Task(
    name="jailbreakbench_benign",
    kind="benign",
    read=_read,
    splits={PROBE: "benign"},
    outputs="short",
    hub_id="JailbreakBench/JBB-Behaviors",
    revision="886acc352a31533ffbcf4ef22c744658688086fc",
    subset="behaviors",
)
