"""The miniature's own tasks: three lengths of arithmetic chains, held-out harmful and benign requests.

The problems are generated, not read: see `dgr_lightning.micro`. Prompts are as the miniature knows them, without an
instruction.
"""

from __future__ import annotations

from dgr_lightning.tasks.task import EVALUATION, PROBE, Row, Task


def _read(row: Row, index: int) -> tuple[str, str, str | None]:
    return str(index), row["prompt"], row.get("gold")


MICRO_TASKS = tuple(
    Task(name, kind, _read, {EVALUATION: EVALUATION, PROBE: PROBE}, language="micro")
    for name, kind in {
        "micro-short": "reasoning",
        "micro-medium": "reasoning",
        "micro-long": "reasoning",
        "micro-harmful": "harmful",
        "micro-benign": "benign",
    }.items()
)
