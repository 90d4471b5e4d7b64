"""What a device holds where nothing is sharded is known before anything is loaded."""

from pathlib import Path

import pytest

from dgr_lightning.config import TuningConfig
from dgr_lightning.models.weights import outline
from dgr_lightning.training.checkpoints import trained_parameters
from dgr_lightning.training.replica import replica_bytes
from dgr_lightning.training.tuning import load


@pytest.mark.parametrize(("method", "precision"), [("lora", "bf16"), ("lora", "fp32"), ("qlora", "bf16")])
def test_the_estimate_is_what_loading_takes_and_three_more_for_every_trained_value(
    any_base: Path, method: str, precision: str
) -> None:
    tuning = TuningConfig(method=method, rank=3)
    model = load(any_base, tuning, precision, "cpu", seed=1)
    expected = sum(weight.nbytes for weight in model.parameters())
    expected += 3 * sum(weight.nbytes for _, weight in trained_parameters(model))
    assert replica_bytes(outline(any_base), tuning, precision) == pytest.approx(expected, rel=0.01)
