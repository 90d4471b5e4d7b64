"""The miniature's own tasks: three lengths of arithmetic chains, held-out harmful and benign requests.

The problems are generated, not read: see `dgr_lightning.micro`. Prompts are as the miniature knows them, without an
instruction.
"""

from __future__ import annotations

from functools import partial

from dgr_lightning.micro import sets
from dgr_lightning.tasks.task import EVALUATION, PROBE, Task, TaskRow


def _read(row: TaskRow, index: int) -> tuple[str, str, str | None]:
    return str(index), row["prompt"], row.get("gold")


def _task(name: str, kind: str, outputs: str, grader: str | None = None) -> Task:
    return Task(
        name,
        kind,
        _read,
        splits={EVALUATION: EVALUATION, PROBE: PROBE},
        grader=grader,
        make=partial(sets.problems, name),
        version=sets.VERSION,
        language="micro",
        outputs=outputs,
    )


MICRO_SHORT = _task("micro-short", "reasoning", "short", "maths")
MICRO_MEDIUM = _task("micro-medium", "reasoning", "medium", "maths")
MICRO_LONG = _task("micro-long", "reasoning", "long", "maths")
MICRO_HARMFUL = _task("micro-harmful", "harmful", "short")
MICRO_BENIGN = _task("micro-benign", "benign", "short")
