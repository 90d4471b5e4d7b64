"""The length-matched comparison: originals and rewrites of one length distribution, so that length explains nothing.

Rewrites are longer or shorter than what they rewrite, and length alone changes what SFT does. So originals and rewrites are
paired by length, not by example: an original may be paired with the rewrite of another. Either arm of the comparison is one
side of the pairs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 0.02
"""Lengths are paired where they differ by at most this share of the longer one."""


@dataclass(frozen=True)
class LengthMatch:
    """The two arms.

    Attributes:
        originals: ids of the examples whose original is kept.
        rewrites: ids of the examples whose rewrite is kept; as many.
        mean_originals: mean length of these originals.
        mean_rewrites: mean length of these rewrites.
        distance: largest difference between the two cumulative distributions of length (Kolmogorov-Smirnov), 0 … 1.
    """

    originals: frozenset[str]
    rewrites: frozenset[str]
    mean_originals: float
    mean_rewrites: float
    distance: float

    @property
    def figures(self) -> dict[str, float]:
        """The numbers alone."""
        return {
            "pairs": len(self.originals),
            "mean_originals": self.mean_originals,
            "mean_rewrites": self.mean_rewrites,
            "distance": self.distance,
        }


def match_lengths(originals: Mapping[str, int], rewrites: Mapping[str, int], labels: Mapping[str, str]) -> LengthMatch:
    """Pairs as many originals and rewrites as have the same length, within a label.

    Taking both sides in order of length and passing over whichever is too short for the other pairs the most that can be
    paired, since what a length may be paired with is an interval whose ends grow with it.

    Args:
        originals: example id → length.
        rewrites: the same for those that were rewritten.
        labels: example id → `harmful` or `benign`; the two arms have as many of each.
    """
    pairs: list[tuple[str, str]] = []
    for label in sorted(set(labels.values())):
        left = _by_length({id_: length for id_, length in originals.items() if labels[id_] == label})
        right = _by_length({id_: length for id_, length in rewrites.items() if labels[id_] == label})
        i = j = 0
        while i < len(left) and j < len(right):
            if abs(left[i][1] - right[j][1]) <= TOLERANCE * max(left[i][1], right[j][1]):
                pairs.append((left[i][0], right[j][0]))
                i, j = i + 1, j + 1
            elif left[i][1] < right[j][1]:
                i += 1
            else:
                j += 1
    lengths = [originals[one] for one, _ in pairs], [rewrites[other] for _, other in pairs]
    return LengthMatch(
        frozenset(one for one, _ in pairs),
        frozenset(other for _, other in pairs),
        sum(lengths[0]) / max(1, len(pairs)),
        sum(lengths[1]) / max(1, len(pairs)),
        _distance(*lengths),
    )


def _by_length(lengths: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(lengths.items(), key=lambda item: (item[1], item[0]))


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    left, right = sorted(one), sorted(other)
    differences = (abs(bisect_right(left, at) - bisect_right(right, at)) for at in {*left, *right})
    return max(differences, default=0) / max(1, len(left))
