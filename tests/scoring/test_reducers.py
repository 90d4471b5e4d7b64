"""pass@k and maj@k against their definition: the mean over all subsets of k samples."""

from collections import Counter
from itertools import combinations
from random import Random

import pytest

from dgr_lightning.scoring.reducers import maj_at_k, pass_at_k, subset_sizes


def vote(subset):
    tally = Counter("the right one" if right else final for right, final in subset if right or final is not None)
    if not tally:
        return 0.0
    first = [answer for answer, count in tally.items() if count == max(tally.values())]
    return ("the right one" in first) / len(first)


@pytest.mark.parametrize("seed", range(12))
def test_both_are_means_over_all_subsets(seed):
    random = Random(seed)
    samples = [(random.random() < 0.4, random.choice(["1", "2", "3", None])) for _ in range(7)]
    for k in range(1, 8):
        subsets = list(combinations(samples, k))
        assert pass_at_k([right for right, _ in samples], k) == pytest.approx(
            sum(any(right for right, _ in subset) for subset in subsets) / len(subsets)
        )
        assert maj_at_k(samples, k) == pytest.approx(sum(map(vote, subsets)) / len(subsets))


def test_a_vote_by_hand():
    assert maj_at_k([(True, "1/2"), (True, "0.5"), (False, "3"), (False, "4")], 4) == 1.0  # right answers are one answer
    assert maj_at_k([(True, "5"), (False, "3"), (False, "3")], 3) == 0.0
    assert maj_at_k([(True, "5"), (False, "3")], 2) == 0.5  # a tie
    assert maj_at_k([(True, "5"), (False, None), (False, None)], 3) == 1.0  # what gives no answer does not vote
    assert maj_at_k([(False, None)] * 3, 3) == 0.0


def test_one_sample_of_one_is_the_rate():
    votes = [(True, "1"), (False, "2"), (False, None), (True, "1")]
    assert maj_at_k(votes, 1) == pass_at_k([right for right, _ in votes], 1) == 0.5


def test_many_samples_take_no_time():
    random = Random(0)
    votes = [(random.random() < 0.3, str(random.randrange(20))) for _ in range(64)]
    assert 0 < maj_at_k(votes, 32) <= 1


@pytest.mark.parametrize(("samples", "sizes"), [(1, []), (2, [2]), (4, [2, 4]), (6, [2, 4, 6]), (8, [2, 4, 8])])
def test_sizes_that_are_reported(samples, sizes):
    assert subset_sizes(samples) == sizes
