"""The length-matched comparison, from rewrites to its two arms."""

from __future__ import annotations

import pytest

from dgr_lightning.errors import UserError
from tests.helpers.scripted import ScriptedEngine, example, good, refined


def test_the_length_matched_arms_have_one_length_distribution(tmp_path):
    """Rewrites are as long as another example's original; those without a partner are in neither arm."""
    examples = [example(n, trace="t" * (30 + n), answer="I cannot.", label="harmful" if n % 2 else "benign") for n in range(40)]

    def script(key: str, prompt: str) -> str:
        number = int(key.split("/")[0].split("-")[1])
        return "so </think> " + ("r" * (40 + number) if key.split("/")[1] == "trace" else "I cannot.")

    arms = {
        arm: refined(tmp_path, ScriptedEngine(script), examples, strategy="length-matched", arm=arm)
        for arm in ("originals", "rewrites")
    }
    originals, rewrites = (list(arms[arm].examples) for arm in ("originals", "rewrites"))
    assert sorted(len(row.trace) for row in originals) == sorted(len(row.trace) for row in rewrites) == list(range(40, 70))
    for label in ("harmful", "benign"):
        assert sum(row.label == label for row in originals) == sum(row.label == label for row in rewrites) == 15
    assert all(set(row.trace) == {"t"} and not row.refined for row in originals)
    assert all(set(row.trace) == {"r"} and row.refined for row in rewrites)
    assert arms["rewrites"].stats.fallback == {"unmatched": 10}


def test_lengths_too_unlike_to_be_compared_are_refused(tmp_path):
    examples = [example(n, trace="t" * 180) for n in range(20)]
    with pytest.raises(UserError, match="only 0 of 20"):
        refined(tmp_path, ScriptedEngine(good), examples, strategy="length-matched")
