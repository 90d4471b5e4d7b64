"""Estimates over the lines of one `<task>.jsonl`: the metric of its kind, and what stands beside it.

The rates are `outcomes.py`'s. Beside them:

- `mean_tokens`: tokens of an output, thinking included.
- `accuracy_of_finished`: accuracy among the outputs that did not run into the token budget, each weighted the same.
- `pass@k` and `maj@k`, where a problem has several samples (`scoring.reducers`); accuracy itself is pass@1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from dgr_lightning.engines.engine import LENGTH
from dgr_lightning.evaluation.judged_rates import judged_estimates
from dgr_lightning.evaluation.outcomes import Row, outcomes_of, token_counts
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.reducers import maj_at_k, pass_at_k, subset_sizes
from dgr_lightning.statistics.bootstrap import ratio_of_sums
from dgr_lightning.statistics.intervals import Estimate, mean_share, pooled_rate, rate
from dgr_lightning.tasks.metrics import FINISHED, KINDS, REASONING, TOKENS, at_k

T = TypeVar("T")


def estimate(rows: Sequence[Row], chat: Chat) -> dict[str, Estimate]:
    """Returns the estimates over the lines of one `<task>.jsonl`: the metric of their kind, then what stands beside it."""
    judged = judged_estimates(rows)
    counted = {metric: rate(list(outcomes.values())) for metric, outcomes in outcomes_of(rows, chat).items()}
    estimates = judged | {metric: value for metric, value in counted.items() if metric not in judged}
    if not chat.thinks:
        estimates["missing_thinking_rate"] = rate([])
    tokens = list(token_counts(rows).values())
    estimates[TOKENS] = ratio_of_sums([sum(counts) for counts in tokens], [len(counts) for counts in tokens])
    if KINDS[rows[0]["kind"]] is REASONING:
        estimates |= _of_finished(rows) | _of_several(rows)
    return estimates


def _of_finished(rows: Sequence[Row]) -> dict[str, Estimate]:
    whole = [row for row in rows if row["finish_reason"] != LENGTH and not row.get("thinking_capped", False)]
    finished = _by_problem(whole, lambda row: bool(row[REASONING.verdict]))
    return {FINISHED: pooled_rate(list(finished.values()))}


def _of_several(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Returns pass@k and maj@k for the k that every problem has samples for."""
    votes = list(_by_problem(rows, lambda row: (bool(row[REASONING.verdict]), row.get("final"))).values())
    estimates = {}
    for k in subset_sizes(min(map(len, votes))):
        shares = {
            "pass": [pass_at_k([right for right, _ in own], k) for own in votes],
            "maj": [maj_at_k(own, k) for own in votes],
        }
        for name, values in shares.items():
            # A problem's n samples hold n / k subsets that are independent of each other.
            estimates[at_k(name, k)] = mean_share(values, max(len(votes), len(rows) // k))
    return estimates


def _by_problem(rows: Sequence[Row], value: Callable[[Row], T]) -> Mapping[str, list[T]]:
    found: dict[str, list[T]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(value(row))
    return found
