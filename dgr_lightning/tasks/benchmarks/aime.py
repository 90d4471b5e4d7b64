"""AIME 2024 and 2025: the 30 problems of each year's two papers, whose answers are whole numbers from 0 to 999.

30 problems are few: the figures of DeepSeek-R1's model card are means over 64 samples, those of other papers over 4 to 16.
Published copies differ: the problem is called `problem`, `question` or `Problem`; 25 is also written '025'.
"""

from __future__ import annotations

from dgr_lightning.tasks.prompt import BOXED, BOXED_SOURCE, Question
from dgr_lightning.tasks.task import EVALUATION, Task, TaskRow, answer_cell, cell


def _read(row: TaskRow, index: int) -> Question:
    answer = answer_cell(row, "answer", "Answer")
    # Leading zeros are of the answer sheet, which has three digits.
    gold = (answer.lstrip("0") or "0") if answer.isdigit() else answer
    return Question(str(index), cell(row, "problem", "question", "Problem"), gold)


def _task(name: str, hub_id: str, revision: str, split: str) -> Task:
    return Task(
        name=name,
        kind="reasoning",
        read=_read,
        grader="maths",
        prompt=BOXED,
        prompt_source=BOXED_SOURCE,
        splits={EVALUATION: split},
        outputs="long",
        hub_id=hub_id,
        revision=revision,
        columns=("problem/question/Problem", "answer/Answer"),
        licence="not stated (problems: MAA)",
        size=30,
    )


AIME24 = _task("aime24", "HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", "train")
AIME25 = _task("aime25", "math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test")
