"""When a checkpoint is due, by a clock that only these tests move."""

from itertools import pairwise

import pytest

from dgr_lightning.training.checkpoint_cadence import MOST_SECONDS_LOST, MOST_SHARE, Times, is_due


def taken(num_steps: int, step_seconds: float, held_up: float = 1.0, to_write: float = 5.0, every: int | str = "auto") -> list:
    """The steps behind which a training takes checkpoints, and the times at which they begin."""
    now, latest, steps = 0.0, 0.0, []
    for step in range(1, num_steps + 1):
        known = Times(now - latest, held_up, to_write) if steps else Times(now - latest)
        now += step_seconds
        if is_due(every, step, num_steps, known):
            latest = now
            steps.append((step, now))
            now += held_up
    return steps


@pytest.mark.parametrize(("num_steps", "step_seconds"), [(40, 0.05), (40, 12.0), (625, 0.3), (25_000, 0.02)])
def test_a_training_of_minutes_has_the_one_at_its_end_alone(num_steps: int, step_seconds: float) -> None:
    assert [step for step, _ in taken(num_steps, step_seconds)] == [num_steps]


@pytest.mark.parametrize(("num_steps", "step_seconds"), [(40, 120.0), (625, 30.0), (25_000, 1.0)])
def test_at_most_ten_minutes_of_work_are_lost_and_little_time(num_steps: int, step_seconds: float) -> None:
    checkpoints = taken(num_steps, step_seconds, held_up=4.0)
    times = [0.0, *(time for _, time in checkpoints)]
    lost = [after - before for before, after in pairwise(times)]
    assert MOST_SECONDS_LOST <= max(lost) <= MOST_SECONDS_LOST + 2 * step_seconds + 4.0
    assert 4.0 * len(checkpoints) <= MOST_SHARE * times[-1]


@pytest.mark.parametrize(("held_up", "to_write", "between"), [(40.0, 90.0, 40.0 / MOST_SHARE), (1.0, 900.0, 1800.0)])
def test_what_takes_long_comes_less_often(held_up: float, to_write: float, between: float) -> None:
    """A slow bus or a slow disk: not more than a share of the time, and never one that waits for the one before it."""
    times = [time for _, time in taken(25_000, 1.0, held_up, to_write)]
    assert times[0] <= MOST_SECONDS_LOST + 2
    assert all(between <= after - before <= between + held_up + 2 for before, after in pairwise(times[:-1]))


def test_numbers_are_steps_whatever_the_time() -> None:
    assert [step for step, _ in taken(40, 1e6, every=15)] == [15, 30, 40]
    assert [step for step, _ in taken(40, 1e6, every=0)] == [40]
