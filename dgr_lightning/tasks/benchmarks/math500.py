"""MATH-500: the 500 competition problems of MATH (Hendrycks et al. 2021) that Lightman et al. held out (arXiv 2305.20050)."""

from __future__ import annotations

from dgr_lightning.tasks.prompt import BOXED, BOXED_SOURCE
from dgr_lightning.tasks.task import EVALUATION, Task, TaskRow, cell


def _read(row: TaskRow, index: int) -> tuple[str, str, str]:
    # The set's own id (test/algebra/1035.json) holds in any copy, in any order.
    name = str(row.get("unique_id") or index).removeprefix("test/").removesuffix(".json").replace("/", "-")
    return name, cell(row, "problem"), cell(row, "answer")


MATH500 = Task(
    name="math500",
    kind="reasoning",
    read=_read,
    grader="maths",
    prompt=BOXED,
    prompt_source=BOXED_SOURCE,
    splits={EVALUATION: "test"},
    outputs="long",
    hub_id="HuggingFaceH4/MATH-500",
    revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
)
