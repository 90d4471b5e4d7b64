"""The length-matched comparison: originals and rewrites with the same distribution of length.

Rewrites are longer or shorter than their originals, and length alone changes what SFT does. To take length out of the
comparison, originals and rewrites are paired by length, not by example: an original may be paired with another example's
rewrite. Each arm of the comparison is one side of the pairs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dgr_lightning.console import say
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.models.chat import Chat
from dgr_lightning.refinement.outcome import Outcome
from dgr_lightning.refinement.rewriter import Rewriter

TOLERANCE = 0.02
"""Two lengths can be paired where they differ by at most this share of the longer one."""
# Fewer pairs are too few to train on.
_FEWEST_PAIRS = 8


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


def match_rewrites(examples: Sequence[Example], rewriter: Rewriter, outcomes: Mapping[str, Outcome], chat: Chat) -> LengthMatch:
    """Pairs the originals and the rewrites of all examples whose rewrite was accepted, by target tokens.

    Args:
        examples: the source set.
        rewriter: reads accepted texts.
        outcomes: by example id, in source order.
        chat: the target's chat format.

    Raises:
        UserError: too few pairs to train on.
    """
    indices = [index for index, outcome in enumerate(outcomes.values()) if outcome.accepted and outcome.reason is None]
    originals, rewrites, labels = {}, {}, {}
    for index in indices:
        example = examples[index]
        labels[example.id] = example.label
        originals[example.id] = len(chat.target_ids(example.trace, example.answer))
        texts = rewriter.texts(index)
        rewrites[example.id] = len(chat.target_ids(texts["trace"], texts["answer"]))
    match = match_lengths(originals, rewrites, labels)
    if len(match.originals) < _FEWEST_PAIRS:
        raise UserError(
            f"refine=length-matched: only {len(match.originals)} of {len(indices)} originals have a rewrite of their length "
            "to be paired with: this set's originals and rewrites differ too much in length to be compared. Take more "
            "examples (data.limit=null), or another data= or model=."
        )
    say(
        f"length-matched: {len(match.originals)} pairs of {len(indices)} rewritten examples, mean target tokens "
        f"{match.mean_originals:.1f} (originals) and {match.mean_rewrites:.1f} (rewrites), "
        f"largest difference of the distributions {match.distance:.3f}"
    )
    return match


def match_lengths(originals: Mapping[str, int], rewrites: Mapping[str, int], labels: Mapping[str, str]) -> LengthMatch:
    """Pairs as many originals with rewrites of the same length as possible, within each label.

    Both sides are gone through in order of length, and whichever length is too short for the other is passed over. That pairs
    as many as possible, since the lengths that one may be paired with are an interval whose ends grow with it.

    Args:
        originals: example id → length.
        rewrites: the same for their rewrites.
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
