"""The estimate of a training's time."""

import pytest

from dgr_lightning.training.training_time import FULL_MFU, assumed_mfu, training_seconds


def test_few_tokens_on_each_device_reach_a_fraction_of_what_many_reach() -> None:
    shares = [assumed_mfu(tokens) for tokens in (350, 900, 8192, 65_536)]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(FULL_MFU, rel=0.03)
    assert 0.05 < shares[0] < shares[1] < 0.15, "8 examples on 8 devices"


def test_time_is_operations_over_what_the_devices_reach_and_recomputing_runs_the_forward_pass_again() -> None:
    assert training_seconds(8e15, 1e15, 8, 0.25) == pytest.approx(4.0)
    assert training_seconds(8e15, 1e15, 8, 0.25, recompute_every=1) == pytest.approx(4.0 * 4 / 3)
    assert training_seconds(8e15, 1e15, 8, 0.25, recompute_every=2) == pytest.approx(4.0 * 7 / 6)
