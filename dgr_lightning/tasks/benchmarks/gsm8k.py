"""GSM8K: grade-school word problems with a whole number as answer (Cobbe et al. 2021, arXiv 2110.14168).

Reported on the 1,319 problems of the test split; probes draw from the train split.
"""

from __future__ import annotations

from dgr_lightning.tasks.prompt import BOXED, BOXED_SOURCE
from dgr_lightning.tasks.task import EVALUATION, PROBE, BadRow, Task, TaskRow, cell


def _read(row: TaskRow, index: int) -> tuple[str, str, str]:
    _, mark, gold = cell(row, "answer").rpartition("####")
    if not mark or not gold.strip():
        raise BadRow("column 'answer' holds no '#### <number>'")
    return str(index), cell(row, "question"), gold.strip().replace(",", "")


GSM8K = Task(
    name="gsm8k",
    kind="reasoning",
    read=_read,
    grader="maths",
    prompt=BOXED,
    prompt_source=BOXED_SOURCE,
    splits={EVALUATION: "test", PROBE: "train"},
    hub_id="openai/gsm8k",
    revision="740312add88f781978c0658806c59bc2815b9866",
    subset="main",
)
