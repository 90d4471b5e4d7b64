"""GPQA-diamond: 198 questions of biology, chemistry and physics that no search answers (Rein et al. 2023, arXiv 2311.12022).

Multiple choice of four. Rows hold the right answer and three wrong ones; `ordered_options` puts them in order. The hub copy is
gated, because its authors want no copy in plain text on the web.
"""

from __future__ import annotations

from dgr_lightning.tasks.prompt import SIMPLE_EVALS, SIMPLE_EVALS_SOURCE, Question, ordered_options
from dgr_lightning.tasks.task import EVALUATION, Task, TaskRow, answer_cell, cell, optional_cell


def _read(row: TaskRow, index: int) -> Question:
    text, right = cell(row, "Question"), answer_cell(row, "Correct Answer")
    options, letter = ordered_options(text, right, [answer_cell(row, f"Incorrect Answer {number}") for number in (1, 2, 3)])
    part = optional_cell(row, "Record ID") or str(index)
    return Question(part, text, letter, options, category=optional_cell(row, "High-level domain"))


GPQA = Task(
    name="gpqa",
    kind="reasoning",
    read=_read,
    grader="choice",
    prompt=SIMPLE_EVALS,
    prompt_source=SIMPLE_EVALS_SOURCE,
    splits={EVALUATION: "train"},
    outputs="long",
    hub_id="Idavidrein/gpqa",
    revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
    subset="gpqa_diamond",
    columns=(
        "Question",
        "Correct Answer",
        "Incorrect Answer 1",
        "Incorrect Answer 2",
        "Incorrect Answer 3",
        "Record ID",
        "High-level domain",
    ),
    gated=True,
    licence="CC-BY-4.0",
    size=198,
)
