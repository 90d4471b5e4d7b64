"""All tasks of an evaluation in one stream take fewer decoding steps than one task after the other."""

import pytest

from benchmarks.evaluation_stream import CAP, miniature_steps, simulated_steps


@pytest.mark.parametrize(("num_engines", "least"), [(1, 1.5), (8, 3.0)])
def test_simulated_engines_are_drained_once_and_not_once_a_task(num_engines: int, least: float) -> None:
    apart, together = simulated_steps(num_engines, slots=128)
    assert together >= CAP, "no fewer steps than the longest output has tokens"
    assert apart >= least * together


def test_the_miniature_writes_the_same_in_fewer_steps() -> None:
    figures = miniature_steps(limit=6, batch_size=16)  # compares the outputs itself
    assert figures["apart"][0] >= 1.5 * figures["together"][0]
