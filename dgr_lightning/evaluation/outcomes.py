"""What each output counts as, by metric and problem: the material of rates and of paired differences.

How an output counts:

- The answer is the text after the close of thinking. An output without one has no answer: wrong, not refused, and in the
  denominator. Two exceptions, in which all of the output is the answer: the style is `none`; or the template does not open a
  thought, the model opened none either, and it ended the output itself.
- `cap_hit_rate`: it ran into the token budget, or its thought was closed by `evaluation.thinking_tokens`.
- `missing_thinking_rate`: it holds no thought; thinking never began, or is empty or white space. Undefined for a style without
  thinking.
- `early_stop_rate`: the model ended it before it had answered; thinking was not closed, or there is nothing after it.
- `unboxed_rate`: it has an answer, and its final answer does not stand where the prompt asked for it.
- `timeout_rate`, `unparsable_rate`: the grader gave up comparing its answer; both count as wrong.
- `refused_reasoning_rate`: its answer to a reasoning problem refuses, by the list of phrases, whichever judge is configured.

Some overlap (an output that ends at once has no thought and stopped early), and none changes the denominator of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.grader import NO_ANSWER, RIGHT, TIMEOUT, UNPARSABLE
from dgr_lightning.scoring.judge import Exchange
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.statistics.paired import OutcomesById
from dgr_lightning.tasks.metrics import KINDS, REASONING

Row = Mapping[str, Any]
"""A line of `<task>.jsonl`, as `records.record` writes it."""

Outcomes = dict[str, dict[str, list[bool]]]
"""metric → id of a problem → sample → whether it counts."""


def outcomes_of(rows: Sequence[Row], chat: Chat) -> Outcomes:
    """Returns what the lines of one `<task>.jsonl` count as: the metric of their kind, then the rates beside it.

    A metric that no line says anything of is left out.
    """
    outcomes: Outcomes = {}
    for row, counts in zip(rows, _counts(rows, chat), strict=True):
        for metric, outcome in counts.items():
            if outcome is not None:
                outcomes.setdefault(metric, {}).setdefault(row["id"], []).append(outcome)
    return outcomes


def measured_by(rows: Iterable[Row]) -> frozenset[str]:
    """Returns the grader with its version, or the judges, that lines name; none where no output had an answer to judge."""
    return frozenset(
        name
        for row in rows
        for name in ([row["grader"]] if row.get("grader") else [said["judge"] for said in row.get("judged", ())])
    )


def token_counts(rows: Iterable[Row]) -> OutcomesById:
    """Returns id → sample → tokens of the output."""
    by_problem: dict[str, list[float]] = {}
    for row in rows:
        by_problem.setdefault(row["id"], []).append(row["num_tokens"])
    return by_problem


def _counts(rows: Sequence[Row], chat: Chat) -> list[dict[str, bool | None]]:
    """Returns metric → whether it counts, a dictionary a line; None: nobody could say."""
    kind = KINDS[rows[0]["kind"]]
    parsed = [chat.parse(row["output"], finished=row["finish_reason"] == STOP) for row in rows]
    found: list[dict[str, bool | None]] = [
        {
            kind.metric: row[kind.verdict],
            "cap_hit_rate": row["finish_reason"] == LENGTH or row.get("thinking_capped", False),
            "missing_thinking_rate": not parts.trace if chat.thinks else None,
            "early_stop_rate": row["finish_reason"] == STOP and not parts.answer,
        }
        for row, parts in zip(rows, parsed, strict=True)
    ]
    if kind is REASONING:
        exchanges = [Exchange(row["prompt"], parts.answer or "") for row, parts in zip(rows, parsed, strict=True)]
        for row, counts, verdict in zip(rows, found, KeywordJudge().verdicts(exchanges), strict=True):
            counts |= _graded(row) | {"refused_reasoning_rate": verdict.refused}
    return found


def _graded(row: Row) -> dict[str, bool | None]:
    """Returns the rates that the grader's own classes make; lines of an earlier version have none."""
    outcome = row.get("outcome")
    if outcome is None:
        return {}
    unboxed = row["boxed"] is False or (row["boxed"] is None and outcome not in (NO_ANSWER, TIMEOUT, RIGHT))
    return {"unboxed_rate": unboxed, "timeout_rate": outcome == TIMEOUT, "unparsable_rate": outcome == UNPARSABLE}
