"""Several samples of a problem as one number: pass@k and maj@k.

Both are means over all subsets of k of a problem's samples, so that they do not depend on the order of the samples and use all
of them.

- pass@k: whether one of k is right; the unbiased estimator of Chen et al. (2021), Evaluating large language models trained on
  code, arXiv 2107.03374, section 2.1.
- maj@k: whether the answer that most of k give is right; Wang et al. (2022), Self-consistency improves chain of thought
  reasoning in language models, arXiv 2203.11171. Right answers are one answer, however they are written: the grader says so.
  Wrong ones are told apart by their text, so two spellings of a wrong answer do not add up. A sample without a final answer
  does not vote. Of answers with equally many votes one is drawn: the share of them that is right counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence


def subset_sizes(samples: int) -> list[int]:
    """Returns the k that are reported for a number of samples: powers of two from 2 on, and the number itself."""
    return (
        sorted({2**power for power in range(1, samples.bit_length()) if 2**power <= samples} | {samples}) if samples > 1 else []
    )


def pass_at_k(right: Sequence[bool], k: int) -> float:
    """Returns the probability that at least one of k samples is right.

    Args:
        right: sample → whether it is; at least k.
        k: at least 1.
    """
    n = len(right)
    return 1.0 - math.comb(n - sum(right), k) / math.comb(n, k)


def maj_at_k(votes: Sequence[tuple[bool, str | None]], k: int) -> float:
    """Returns the probability that the vote of k samples is right.

    Args:
        votes: sample → whether it is right, and its final answer; None: it has none. At least k.
        k: at least 1.
    """
    num_right = sum(right for right, _ in votes)
    others = Counter(final for right, final in votes if not right and final is not None)
    silent = len(votes) - num_right - others.total()
    score = 0.0
    for chosen in range(1, min(num_right, k) + 1):  # right ones in the subset
        rest = _ways(others.values(), silent, k - chosen, chosen)
        score += math.comb(num_right, chosen) * math.fsum(ways / (1 + ties) for ties, ways in rest)
    return score / math.comb(len(votes), k)


def _ways(counts: Iterable[int], silent: int, size: int, most: int) -> Iterator[tuple[int, int]]:
    """Yields (number of answers with exactly `most` votes, in how many ways `size` samples are drawn so, none having more).

    Args:
        counts: of the samples with each wrong answer.
        silent: samples without an answer.
        size: samples drawn.
        most: votes that none of these answers exceeds.
    """
    # (samples drawn, answers with `most` votes) → ways
    table = Counter({(drawn, 0): math.comb(silent, drawn) for drawn in range(min(silent, size) + 1)})
    for count in counts:
        longer = Counter[tuple[int, int]]()
        for (drawn, ties), ways in table.items():
            for votes in range(min(count, most, size - drawn) + 1):
                longer[drawn + votes, ties + (votes == most)] += ways * math.comb(count, votes)
        table = longer
    return ((ties, ways) for (drawn, ties), ways in table.items() if drawn == size)
