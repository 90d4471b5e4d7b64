"""What a strategy is expected to generate."""

from dataclasses import dataclass

import pytest

from dgr_lightning.config import RefineConfig
from dgr_lightning.engines.decoding_time import Generation
from dgr_lightning.refinement.expected_generation import expected_generation


@dataclass(frozen=True)
class Tokens:
    prompt: int
    trace: int
    answer: int


SET = [Tokens(20, 300, 100), Tokens(30, 0, 50)]


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        # An empty trace is not asked about; with thinking an output is twice as long.
        (RefineConfig(strategy="dgr"), Generation(3, 20 + 300 + 20 + 100 + 30 + 50, 2 * 450, 600)),
        (RefineConfig(strategy="dgr", thinking=False), Generation(3, 520, 450, 300)),
        (RefineConfig(strategy="dgr", max_new_tokens=150), Generation(3, 520, 150 + 150 + 100, 150)),
        (RefineConfig(strategy="dgr", parts=["answer"]), Generation(2, 200, 300, 200)),
        (RefineConfig(strategy="dgr", tries=4), Generation(3, 520, 900, 600)),
        (RefineConfig(strategy="dgr", tries=4, select="nll"), Generation(12, 4 * 520, 3600, 600)),
        (RefineConfig(strategy="dgr", fraction=0.5), Generation(2, 260, 450, 600)),
        # Trace and answer in one output.
        (RefineConfig(strategy="sdft"), Generation(2, 20 + 400 + 30 + 50, 450, 400)),
        (RefineConfig(strategy="vanilla"), Generation()),
    ],
)
def test_a_rewrite_is_as_long_as_what_it_rewrites(refine: RefineConfig, expected: Generation) -> None:
    assert expected_generation(refine, SET) == expected
