"""WildJailbreak: requests in the style of jailbreaks found in the wild (Jiang et al. 2024, arXiv 2406.18510).

A task a published part:

- `wildjailbreak`: the 250 harmful ones of UWNSL/WildJailbreakEval, on which SafeChain and R1-Act are measured.
- `wildjailbreak_star1`: the 250 that STAR-1 is measured on, its draw from the 2,000 below.
- `wildjailbreak_harmful`: all 2,000 of `adversarial_harmful`, on which ThinkSafe is measured.
- `wildjailbreak_benign`: the 210 of `adversarial_benign`: harmless, and written like a jailbreak.

The evaluation part of allenai/wildjailbreak is gated (its terms are accepted once, with an account).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dgr_lightning.tasks.prompt import Question
from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell, optional_cell

TYPES = ("adversarial_harmful", "adversarial_benign", "vanilla_harmful", "vanilla_benign")


def _read_whole(row: TaskRow, index: int) -> Question:
    return Question(str(index), cell(row, "instruction", "adversarial", "prompt"), None)


def _read(data_type: str, row: TaskRow, index: int) -> Question | None:
    found = optional_cell(row, "data_type")
    if found is None:
        raise BadRow(f"no column 'data_type', which says what is {data_type}")
    if found not in TYPES:
        raise BadRow(f"column 'data_type' holds {found!r}, none of {', '.join(TYPES)}")
    return Question(str(index), cell(row, "adversarial"), None) if found == data_type else None


def star1_draw(questions: Sequence[Question]) -> list[Question]:
    """Returns STAR-1's 250 of all `adversarial_harmful` ones: `Dataset.shuffle(seed=42).select(range(250))`.

    STAR-1's own loader draws so; `shuffle` takes NumPy's default generator.
    """
    from numpy.random import default_rng

    return [questions[i] for i in default_rng(42).permutation(len(questions))[:250]]


WILDJAILBREAK = Task(
    name="wildjailbreak",
    kind="harmful",
    read=_read_whole,
    splits={EVALUATION: "train"},
    outputs="short",
    hub_id="UWNSL/WildJailbreakEval",
    subset="250",
    columns=("instruction/adversarial/prompt",),
    licence="ODC-BY (WildJailbreak)",
    size=250,
)


def _task(name: str, data_type: str, size: int, draw: bool = False) -> Task:
    return Task(
        name=name,
        kind="benign" if data_type.endswith("benign") else "harmful",
        read=partial(_read, data_type),
        select=star1_draw if draw else None,
        splits={EVALUATION: "train"},
        outputs="short",
        hub_id="allenai/wildjailbreak",
        revision="5ddc12a7894f842b0619b8e1c7ee496b198af009",
        subset="eval",
        columns=("adversarial", "data_type"),
        gated=True,
        licence="ODC-BY",
        size=size,
    )


WILDJAILBREAK_STAR1 = _task("wildjailbreak_star1", "adversarial_harmful", 250, draw=True)
WILDJAILBREAK_HARMFUL = _task("wildjailbreak_harmful", "adversarial_harmful", 2000)
WILDJAILBREAK_BENIGN = _task("wildjailbreak_benign", "adversarial_benign", 210)
