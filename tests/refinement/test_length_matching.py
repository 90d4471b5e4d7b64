"""Originals and rewrites are paired by length, as many as can be, and end up with one distribution."""

import itertools
import random

import pytest

from dgr_lightning.refinement.length_matching import TOLERANCE, match_lengths


def most_pairs(left: list[int], right: list[int]) -> int:
    """The size of the largest matching, by trying them all."""
    best = 0
    few, many = sorted((left, right), key=len)
    for chosen in itertools.permutations(range(len(many)), len(few)):
        pairs = ((few[i], many[j]) for i, j in enumerate(chosen))
        best = max(best, sum(abs(a - b) <= TOLERANCE * max(a, b) for a, b in pairs))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_no_pairing_has_more_pairs(seed):
    rng = random.Random(seed)
    left = [rng.randint(90, 110) for _ in range(rng.randint(1, 6))]
    right = [rng.randint(90, 110) for _ in range(rng.randint(1, 6))]
    originals = {f"o{i}": length for i, length in enumerate(left)}
    rewrites = {f"r{i}": length for i, length in enumerate(right)}
    match = match_lengths(originals, rewrites, dict.fromkeys([*originals, *rewrites], "harmful"))
    assert len(match.originals) == len(match.rewrites) == most_pairs(left, right)


def test_labels_are_not_mixed_and_figures_are_those_of_the_pairs():
    originals = {"a": 100, "b": 200, "c": 300}
    rewrites = {"a": 200, "b": 101, "c": 300}
    labels = {"a": "harmful", "b": "benign", "c": "harmful"}
    match = match_lengths(originals, rewrites, labels)
    assert (match.originals, match.rewrites) == ({"c"}, {"c"})
    assert (match.mean_originals, match.mean_rewrites, match.distance) == (300, 300, 0)
    assert match.figures == {"pairs": 1, "mean_originals": 300, "mean_rewrites": 300, "distance": 0}
    mixed = match_lengths(originals, rewrites, dict.fromkeys("abc", "harmful"))
    assert len(mixed.originals) == 3 and mixed.mean_rewrites - mixed.mean_originals == pytest.approx(1 / 3)
    assert mixed.distance == pytest.approx(1 / 3)


def test_no_pairs_are_no_error():
    match = match_lengths({"a": 10}, {"a": 99}, {"a": "harmful"})
    assert not match.originals and match.distance == 0
