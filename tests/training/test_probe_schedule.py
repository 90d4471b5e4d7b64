"""When probes come follows from the number of steps alone, and what they cost can be said before and after."""

import pytest

from dgr_lightning.training.probe_schedule import (
    estimated_seconds,
    num_probes,
    probe_interval,
    probe_share,
    share_warning,
)


@pytest.mark.parametrize(
    ("steps", "every", "probes"), [(1, 1, 2), (4, 1, 5), (6, 2, 4), (40, 8, 6), (625, 125, 6), (25_000, 5_000, 6), (0, 1, 1)]
)
def test_a_training_probes_after_every_fifth_of_its_steps(steps, every, probes):
    assert probe_interval(steps) == every
    assert num_probes(steps, every) == probes == len({0, *range(0, steps, every), steps})


def test_no_probes_come_where_none_are_asked_for():
    assert num_probes(625, 0) == 0 == estimated_seconds(0, 48, 2048, 0.01, 128)


def test_the_estimate_follows_the_longest_output_until_a_batch_is_full():
    assert estimated_seconds(6, 48, 2048, 0.01, 128) == pytest.approx(122.88)
    assert estimated_seconds(6, 96, 2048, 0.01, 128) == estimated_seconds(6, 48, 2048, 0.01, 128)
    assert estimated_seconds(6, 300, 100, 0.01, 128) == 3 * estimated_seconds(6, 128, 100, 0.01, 128)
    assert estimated_seconds(6, 300, 100, 0.01, 128, num_ranks=3) == estimated_seconds(6, 100, 100, 0.01, 128)


def test_more_than_a_tenth_is_warned_of_with_the_keys_that_change_it():
    assert probe_share(0.0, 0.0) == 0 and probe_share(10.0, 90.0) == pytest.approx(0.1)
    assert share_warning(10.0, 90.0, 16, 2048) is None
    warning = share_warning(60.0, 60.0, 16, 2048)
    assert warning == (
        "probes took 50% of the training's time (60.0 s beside 60.0 s in steps): a smaller probes.size (now 16) or "
        "probes.max_new_tokens (now 2048) makes them shorter, a larger probes.every rarer"
    )
    assert share_warning(2.0, 1.0, 16, 2048) is None, "nobody waits for two seconds"
