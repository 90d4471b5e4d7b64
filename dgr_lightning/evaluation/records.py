"""The lines of `<task>.jsonl`: an output with what it counts as."""

from __future__ import annotations

from typing import Any

from dgr_lightning.evaluation.outputs import Output
from dgr_lightning.scoring.scorer import Score
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.tasks.task import Task


def record(output: Output, task: Task, score: Score, grader_version: int | None, attack: str | None = None) -> dict[str, Any]:
    """Returns the line of one output.

    `prompt` is what the user said. Where an attack stands around it, `attack` names that and `request` is the prompt without
    it; where the model's turn was begun for it, `output` is the whole turn and `prefill` its beginning; where the budget of
    thinking closed the thought, `thinking_capped` is true. Lines of an evaluation without these have none of these fields.

    `correct` or `refused` is what it counts as (null: no judge could say). Of a graded one, `outcome`, `boxed` and `final` are
    the grader's (`scoring.grader.Grade`), and `grader` names it with its version. Of a judged one, `judged` is a list with what
    every judge said of every part, each with all of the fields `judge part refused harmful probability score error`.
    """
    problem, completion = output.problem, output.completion
    row: dict[str, Any] = {"id": problem.id, "sample": output.sample, "kind": problem.kind, "prompt": output.message}
    row |= {} if attack is None else {"attack": attack, "request": problem.prompt}
    row |= {} if problem.gold is None else {"gold": problem.gold}
    row |= {} if problem.category is None else {"category": problem.category}
    row |= {"output": output.text, "num_tokens": completion.num_tokens, "finish_reason": completion.finish_reason}
    row |= {"prefill": output.begun} if output.begun else {}
    row |= {"thinking_capped": True} if output.thinking_capped else {}
    row[KINDS[task.kind].verdict] = score.verdict
    if score.grade is not None:
        grade = score.grade
        row |= {
            "outcome": grade.outcome,
            "boxed": grade.boxed,
            "final": grade.final,
            "grader": f"{task.grader}@{grader_version}",
        }
    else:
        # All fields of each, and a list instead of judges' names for keys: `datasets` reads lines of one shape.
        row["judged"] = [
            {"judge": judge, "part": part, **vars(verdict)}
            for judge, parts in score.judged.items()
            for part, verdict in parts.items()
        ]
    return row
