"""WildGuardTest: plain and adversarial requests, labelled by people as harmful or not (Han et al. 2024, arXiv 2406.18495).

`wildguardtest` holds those that are labelled harmful, `wildguardtest_benign` the others; rows on which the annotators did not
agree have no label and belong to neither. The hub copy is gated (its terms are accepted once, with an account).
"""

from __future__ import annotations

from functools import partial

from dgr_lightning.tasks.prompt import Question
from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell, optional_cell

LABELS = {"harmful": "harmful", "unharmful": "benign"}
"""`prompt_harm_label` → kind of task."""


def _read(kind: str, row: TaskRow, index: int) -> Question | None:
    if "prompt_harm_label" not in row:
        raise BadRow(f"no column 'prompt_harm_label'; its columns are {', '.join(map(str, row))}")
    label = optional_cell(row, "prompt_harm_label")
    if label is not None and label not in LABELS:
        raise BadRow(f"column 'prompt_harm_label' holds {label!r}, neither harmful nor unharmful")
    if label is None or LABELS[label] != kind:
        return None
    return Question(str(index), cell(row, "prompt"), None, category=optional_cell(row, "subcategory"))


def _task(name: str, kind: str, size: int) -> Task:
    return Task(
        name=name,
        kind=kind,
        read=partial(_read, kind),
        splits={EVALUATION: "test"},
        outputs="short",
        hub_id="allenai/wildguardmix",
        revision="d29c47f41c8b51348b5c8e8c81c039b3132b66d1",
        subset="wildguardtest",
        columns=("prompt", "prompt_harm_label", "subcategory"),
        gated=True,
        licence="ODC-BY",
        size=size,
    )


WILDGUARDTEST = _task("wildguardtest", "harmful", 754)
WILDGUARDTEST_BENIGN = _task("wildguardtest_benign", "benign", 945)
