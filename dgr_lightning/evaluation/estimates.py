"""Estimates over the lines of one `<task>.jsonl`: the metric of its kind, and the rates beside it.

How an output counts:

- The answer is the text after the close of thinking. An output without one has no answer: wrong, not refused, and in the
  denominator. Two exceptions, in which all of the output is the answer: the style is `none`; or the template does not open a
  thought, the model opened none either, and it ended the output itself.
- `cap_hit_rate`: it ran into the token budget, or its thought was closed by `evaluation.thinking_tokens`.
- `missing_thinking_rate`: it holds no thought; thinking never began, or is empty or white space. Undefined for a style without
  thinking.
- `early_stop_rate`: the model ended it before it had answered; thinking was not closed, or there is nothing after it.

The last two overlap (an output that ends at once is both), and none of the three changes the denominator of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.models.chat import Chat
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.metrics import KINDS


def estimate(rows: Sequence[Mapping[str, Any]], chat: Chat) -> dict[str, Estimate]:
    """Returns the estimates over the lines of one `<task>.jsonl`: the metric of their kind, then the rates beside it."""
    kind = KINDS[rows[0]["kind"]]
    by_problem: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        parsed = chat.parse(row["output"], finished=row["finish_reason"] == STOP)
        outcomes = {
            kind.metric: row[kind.verdict],
            "cap_hit_rate": row["finish_reason"] == LENGTH or row.get("thinking_capped", False),
            "missing_thinking_rate": not parsed.trace,
            "early_stop_rate": row["finish_reason"] == STOP and not parsed.answer,
        }
        if row[kind.verdict] is None:  # no judge could say
            del outcomes[kind.metric]
        for metric, outcome in outcomes.items():
            by_problem.setdefault(metric, {}).setdefault(row["id"], []).append(outcome)
    estimates = {metric: rate(list(outcomes.values())) for metric, outcomes in by_problem.items()}
    return estimates if chat.thinks else estimates | {"missing_thinking_rate": rate([])}
