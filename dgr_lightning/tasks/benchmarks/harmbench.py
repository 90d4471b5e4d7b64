"""HarmBench: 400 harmful behaviours in text (Mazeika et al. 2024, arXiv 2402.04249), plain or rewritten by attacks.

- `harmbench`: all 400, that is 200 standard ones, 100 contextual ones, which come with a text that they are about, and 100 that
  ask for copyrighted works. The context is part of the prompt, as in HarmBench's own baselines. Whether the text of a work was
  reproduced is more than a judge of refusals can say: for a figure without it take `harmbench_standard`.
- `harmbench_standard`: the 200 standard ones.
- `harmbench_adversarial`: the 602 prompts of attacks on its behaviours that ThinkSafe (arXiv 2601.23143) is measured on; they
  are on no hub.

The hub copy is gated and calls the columns `prompt` and `context`; the authors' CSV calls them `Behavior` and `ContextString`.
"""

from __future__ import annotations

from functools import partial

from dgr_lightning.tasks.prompt import BARE_SOURCE, Question
from dgr_lightning.tasks.task import EVALUATION, BadRow, Task, TaskRow, cell, optional_cell

CATEGORIES = ("standard", "contextual", "copyright")


def _read(categories: tuple[str, ...], row: TaskRow, index: int) -> Question | None:
    category = optional_cell(row, "FunctionalCategory")
    if category is not None and category not in CATEGORIES:
        raise BadRow(f"column 'FunctionalCategory' holds {category!r}, none of {', '.join(CATEGORIES)}")
    if category is not None and category not in categories:
        return None
    context = optional_cell(row, "ContextString", "context") or ""
    part = optional_cell(row, "BehaviorID") or str(index)
    return Question(part, cell(row, "Behavior", "prompt"), None, context=context, category=category)


def _read_adversarial(row: TaskRow, index: int) -> Question:
    return Question(str(index), cell(row, "prompt"), None)


def _task(name: str, size: int, *categories: str) -> Task:
    return Task(
        name=name,
        kind="harmful",
        read=partial(_read, categories),
        prompt_source=f"{BARE_SOURCE}, of contextual ones after its text, as in HarmBench's baselines",
        splits={EVALUATION: "train"},
        outputs="short",
        hub_id="walledai/HarmBench",
        subset=categories,
        columns=("Behavior/prompt", "ContextString/context", "FunctionalCategory", "BehaviorID"),
        gated=True,
        licence="MIT",
        size=size,
    )


HARMBENCH = _task("harmbench", 400, *CATEGORIES)
HARMBENCH_STANDARD = _task("harmbench_standard", 200, "standard")
HARMBENCH_ADVERSARIAL = Task(
    name="harmbench_adversarial",
    kind="harmful",
    read=_read_adversarial,
    splits={EVALUATION: "train"},
    outputs="short",
    columns=("prompt",),
    home="https://github.com/seanie12/ThinkSafe, dataset/eval/harmbench.json",
    licence="not stated",
    size=602,
)
