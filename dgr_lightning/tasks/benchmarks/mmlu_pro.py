"""MMLU-Pro: 12,032 questions of 14 subjects with up to ten options (Wang et al. 2024, arXiv 2406.01574).

The options stand in the published order, in which every figure of the literature was measured. The letter of the right one is
published with it.
"""

from __future__ import annotations

from string import ascii_uppercase

from dgr_lightning.tasks.prompt import SIMPLE_EVALS, SIMPLE_EVALS_SOURCE, Question
from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell, optional_cell


def _read(row: TaskRow, index: int) -> Question:
    options, letter = row.get("options"), cell(row, "answer")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options) or not 2 <= len(options) <= 10:
        raise BadRow("column 'options' holds no list of two to ten texts; a copy in CSV has none, take jsonl or parquet")
    if letter not in ascii_uppercase[: len(options)] or len(letter) != 1:
        raise BadRow(f"column 'answer' holds {letter!r}, which is none of its {len(options)} options")
    number = row.get("question_id")
    return Question(
        str(index if number is None else number),
        cell(row, "question"),
        letter,
        tuple(options),
        category=optional_cell(row, "category"),
    )


MMLU_PRO = Task(
    name="mmlu_pro",
    kind="reasoning",
    read=_read,
    grader="choice",
    prompt=SIMPLE_EVALS,
    prompt_source=f"{SIMPLE_EVALS_SOURCE}, with the letters of the question's own options",
    splits={EVALUATION: "test"},
    hub_id="TIGER-Lab/MMLU-Pro",
    revision="b189ec765aa7ed75c8acfea42df31fdae71f97be",
    columns=("question", "options", "answer", "question_id", "category"),
    licence="MIT",
    size=12032,
)
