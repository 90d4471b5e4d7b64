"""What training changed: every rate of the tuned model minus the base's, paired on the problems that both were given.

Computed from the outputs on disk: for each task, and of the metric of a kind also for the average over its tasks. Where the two
sides were graded by different versions or judged by different judges, their verdicts are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgr_lightning.evaluation.outcomes import Outcomes, measured_by, outcomes_of, token_counts
from dgr_lightning.evaluation.subjects import SUBJECTS, outputs_file
from dgr_lightning.files import read_jsonl
from dgr_lightning.models.chat import Chat
from dgr_lightning.statistics.bootstrap import ratio_of_sums
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.statistics.paired import OutcomesById, Pair, macro_difference, paired_difference
from dgr_lightning.tasks.metrics import HEALTH, TOKENS, Estimates, Kind


@dataclass(frozen=True)
class Differences:
    """Tuned minus base.

    Attributes:
        headline: `Kind.headline` → the difference of the macro averages; without kinds that were not measured alike.
        tasks: task → metric → the difference.
    """

    headline: Mapping[str, Estimate]
    tasks: Estimates


@dataclass(frozen=True)
class Side:
    """A model's outputs on a task: what they count as, their tokens, and who graded or judged them."""

    outcomes: Outcomes
    tokens: OutcomesById
    measured_by: frozenset[str]

    @classmethod
    def read(cls, path: Path, chat: Chat) -> Side:
        """Reads one `<task>.jsonl`."""
        rows = list(read_jsonl(path))
        return cls(outcomes_of(rows, chat), token_counts(rows), measured_by(rows))


def differences(run_dir: Path, tasks: Mapping[str, Kind], chat: Chat) -> Differences:
    """Returns the differences of a run's two models.

    Args:
        run_dir: holds the outputs of both, as `evaluate_model` wrote them.
        tasks: task → its kind.
        chat: of the base; tuning changes no marks of thinking.
    """
    by_task: Estimates = {}
    pairs: dict[str, list[Pair]] = {}
    for task, kind in tasks.items():
        base, tuned = (Side.read(outputs_file(run_dir, subject, task), chat) for subject in SUBJECTS)
        by_task[task] = side_differences(base, tuned)
        if kind.metric in by_task[task]:
            pairs.setdefault(kind.headline, []).append((base.outcomes[kind.metric], tuned.outcomes[kind.metric]))
        else:
            pairs.setdefault(kind.headline, []).append(({}, {}))  # an average without one of its tasks is another average
    headline = {name: macro_difference(own) for name, own in pairs.items()}
    return Differences({name: one for name, one in headline.items() if one.value is not None}, by_task)


def side_differences(a: Side, b: Side) -> dict[str, Estimate]:
    """Returns metric → b minus a, over the problems that both have; without those that were not measured alike."""
    alike = not a.measured_by or not b.measured_by or a.measured_by == b.measured_by  # a side without answers was not judged
    found = {
        metric: paired_difference(a.outcomes[metric], b.outcomes[metric])
        for metric in a.outcomes
        if metric in b.outcomes and (alike or metric in HEALTH)
    }
    return found | {TOKENS: mean_difference(a.tokens, b.tokens)}


def mean_difference(a: OutcomesById, b: OutcomesById) -> Estimate:
    """Returns the mean over problems that both have of b minus a, of quantities without bounds."""
    changes = [_mean(b[id_]) - _mean(own) for id_, own in a.items() if id_ in b]
    return ratio_of_sums(changes, [1.0] * len(changes))


def cap_hit_warnings(found: Differences, base: Estimates, tuned: Estimates) -> list[str]:
    """Returns a sentence for each task on which one of the models runs into its token budget more often than the other.

    An output that was cut off is wrong whatever it would have said, so that part of a difference in accuracy, or in refusals,
    is then the budget's.
    """
    warnings = []
    for task, metrics in found.tasks.items():
        change = metrics.get("cap_hit_rate")
        if change is None or change.low is None or change.high is None or change.low <= 0 <= change.high:
            continue
        before, after = (100 * (side[task]["cap_hit_rate"].value or 0.0) for side in (base, tuned))
        warnings.append(
            f"{task}: {before:.1f} % of the base's outputs and {after:.1f} % of the tuned model's ran into the token budget "
            f"(difference {100 * change.low:+.1f} to {100 * change.high:+.1f} points). Part of what differs between the two is "
            "the budget's: raise evaluation.max_new_tokens, or compare them among finished outputs."
        )
    return warnings


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
