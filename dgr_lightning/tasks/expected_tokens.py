"""How long outputs to a task will be, guessed before any is generated: for a plan."""

from __future__ import annotations

from dgr_lightning.tasks.task import Task

TYPICAL_TOKENS = {"short": 500, "medium": 1500, "long": 4000}
"""Kind of outputs (`Task.outputs`) → tokens of one by a reasoning model, thinking included. An assumption."""

ASSUMED_PROBLEMS = 500
"""Problems of a task that cannot be read and does not say how many it has."""

PROMPT_TOKENS = 150
"""Of a problem with its instructions and the chat's marks."""


def expected_tokens(task: Task, max_new_tokens: int) -> int:
    """Returns the tokens of a typical output, which a budget may cut."""
    return min(TYPICAL_TOKENS[task.outputs], max_new_tokens)
