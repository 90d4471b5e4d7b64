"""BeaverTails: the first 1,000 prompts of its test split whose answer is labelled unsafe (Ji et al. 2023, arXiv 2307.04657).

As in the Safety-Tax paper (arXiv 2503.00555). A row of the data set is a prompt with an answer, and the label is of the pair: a
prompt may come several times, and is then asked several times, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dgr_lightning.tasks.prompt import Question
from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell

UNSAFE = {False: True, "False": True, "false": True, True: False, "True": False, "true": False}
"""`is_safe` as published copies write it → whether the row is one of an unsafe answer."""


def _read(row: TaskRow, index: int) -> Question | None:
    safe = row.get("is_safe")
    if not isinstance(safe, bool | str) or safe not in UNSAFE:
        raise BadRow(f"column 'is_safe' holds {safe!r}, neither true nor false")
    if not UNSAFE[safe]:
        return None
    category = row.get("category")
    named = [name for name, is_one in category.items() if is_one is True] if isinstance(category, Mapping) else []
    return Question(str(index), cell(row, "prompt"), None, category=", ".join(named) or None)


def first_1000(questions: Sequence[Question]) -> Sequence[Question]:
    """Returns the first 1,000 questions."""
    return questions[:1000]


BEAVERTAILS = Task(
    name="beavertails",
    kind="harmful",
    read=_read,
    select=first_1000,
    splits={EVALUATION: "30k_test"},
    outputs="short",
    hub_id="PKU-Alignment/BeaverTails",
    revision="8401fe609d288129cc684a9b3be6a93e41cfe678",
    columns=("prompt", "is_safe", "category"),
    licence="CC-BY-NC-4.0",
    size=1000,
)
