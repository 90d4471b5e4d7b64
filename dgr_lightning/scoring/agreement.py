"""How far a judge agrees with people, or with another judge: agreement, precision, recall and Cohen's kappa with intervals.

Agreement alone flatters where one class is rare; kappa is what is left of it beyond chance. All four are ratios of sums over
texts, so all have their variance by linearization, which lets the texts of one prompt depend on each other: their influences
are added before they are squared. Without clusters that is the binomial variance of a share, and Fleiss, Cohen & Everitt's
(1969, Psychol Bull 72:323) of kappa. Limits are Wilson's for the number of independent texts that would give this variance, so
an interval stays in range and has a width where nobody disagrees. `docs/evaluation.md` has its coverage.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from dgr_lightning.statistics.intervals import Estimate, wilson

UNDEFINED = Estimate(None, None, None, 0)


@dataclass(frozen=True)
class Agreement:
    """Two readings of the same texts, compared.

    Attributes:
        n: texts.
        both: texts of which both say it.
        judge_only: of which the judge alone says it.
        label_only: of which the label alone says it.
        neither: of which neither says it.
        agreement: share of texts on which they agree.
        precision: share of what the judge says that the label says too.
        recall: share of what the label says that the judge says too.
        kappa: Cohen's; undefined where both say the same of every text.
    """

    n: int
    both: int
    judge_only: int
    label_only: int
    neither: int
    agreement: Estimate
    precision: Estimate
    recall: Estimate
    kappa: Estimate


def agreement(judged: Sequence[bool], labels: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> Agreement:
    """Compares what a judge says with labels, or with what another judge says.

    Args:
        judged: what the judge says, a text an entry. Texts of which it could not tell are left out, and counted elsewhere.
        labels: what people, or the other judge, say of the same texts.
        clusters: what each text belongs to, such as the id of its problem; None: every text stands alone.

    Raises:
        ValueError: the lists differ in length.
    """
    pairs = list(zip(judged, labels, strict=True))
    groups = list(range(len(pairs))) if clusters is None else list(clusters)
    if len(groups) != len(pairs):
        raise ValueError(f"{len(groups)} clusters of {len(pairs)} texts")
    same = [float(a == b) for a, b in pairs]
    both, ones = [float(a and b) for a, b in pairs], [1.0] * len(pairs)
    return Agreement(
        n=len(pairs),
        both=sum(a and b for a, b in pairs),
        judge_only=sum(a and not b for a, b in pairs),
        label_only=sum(b and not a for a, b in pairs),
        neither=sum(not (a or b) for a, b in pairs),
        agreement=_share(same, ones, groups),
        precision=_share(both, [float(a) for a, _ in pairs], groups),
        recall=_share(both, [float(b) for _, b in pairs], groups),
        kappa=_kappa(pairs, groups),
    )


def _share(hits: Sequence[float], of: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    """Returns the share of hits among the texts that `of` marks."""
    total = math.fsum(of)
    if total == 0:
        return UNDEFINED
    value = math.fsum(hits) / total
    influences = [(hit - value * counted) / total for hit, counted in zip(hits, of, strict=True)]
    number = len({group for group, counted in zip(groups, of, strict=True) if counted})
    return Estimate(value, *_limits(value, _variance(influences, groups), number), number)


def _kappa(pairs: Sequence[tuple[bool, bool]], groups: Sequence[Hashable]) -> Estimate:
    n = len(pairs)
    if n == 0:
        return UNDEFINED
    first, second = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    observed = sum(a == b for a, b in pairs) / n
    chance = first * second + (1 - first) * (1 - second)
    number = len(set(groups))
    if chance == 1:  # both say the same of every text: there is nothing beyond chance to agree on
        return Estimate(None, None, None, number)
    beyond = 1 - chance
    value = (observed - chance) / beyond
    # In units of the observed agreement, where Wilson's limits hold; the marginals' own error is part of the influence.
    influences = [
        ((a == b) - observed - (1 - observed) / beyond * ((2 * second - 1) * (a - first) + (2 * first - 1) * (b - second))) / n
        for a, b in pairs
    ]
    variance = _variance(influences, groups) * number / max(1, number - 1)  # two estimated marginals make the plain sum small
    low, high = ((limit - chance) / beyond for limit in _limits(observed, variance, number))
    return Estimate(value, max(-1.0, low), min(1.0, high), number)


def _variance(influences: Sequence[float], groups: Sequence[Hashable]) -> float:
    sums: dict[Hashable, float] = {}
    for influence, group in zip(influences, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + influence
    return math.fsum(total * total for total in sums.values())


def _limits(share: float, variance: float, number: int) -> tuple[float, float]:
    """Returns Wilson's limits for as many independent texts as give the variance; for `number` where it is unknown, 0."""
    effective = share * (1 - share) / variance if variance > 1e-15 and 0 < share < 1 else float(number)
    return wilson(share, effective)
