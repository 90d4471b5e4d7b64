"""The tax where it is safe: chosen on the probe split, read off the evaluation split."""

import math

import pytest

from dgr_lightning.experiments.grid import finished_runs
from dgr_lightning.experiments.safe_tax import mean_over_log, safe_tax
from tests.helpers.study_runs import finished_run


def over(tmp_path, *points):
    """Runs over learning rates: (learning rate, accuracy, probe rates, over-refusal)."""
    for lr, accuracy, probe, over_refusal in points:
        finished_run(tmp_path, "dgr", lr, 0, 1, accuracy, probe=probe, over_refusal=over_refusal)
    return finished_runs(tmp_path / "grid")


def test_the_rate_is_chosen_on_the_probe_split_among_safe_ones(tmp_path):
    found = safe_tax(
        over(
            tmp_path,
            (1e-4, 0.9, (0.99, 0.90, 0.00), 0.0),  # does not refuse enough
            (2e-4, 0.8, (0.95, 1.00, 0.50), 0.5),  # refuses too much that is benign
            (4e-4, 0.5, (0.80, 0.95, 0.10), 0.1),  # safe, and the best on the probe split
            (8e-4, 0.7, (0.70, 1.00, 0.00), 0.0),  # safe, better on the evaluation split, which is not looked at
        )
    )
    assert found.safe is not None and found.safe.lr == 4e-4
    assert found.safe.tax.value == pytest.approx(0.4)
    assert found.matched is not None and found.matched.lr == 2e-4
    assert found.safe_share.value == pytest.approx(3 / 4)  # of the evaluation split, where 1e-4 refuses everything


def test_none_is_a_result(tmp_path):
    found = safe_tax(over(tmp_path, (1e-3, 0.9, (0.9, 1.0, 0.2), 0.2), (2e-3, 0.9, (0.9, 0.9, 0.0), 0.2)))
    assert found.safe is None
    assert found.matched is not None and found.matched.lr == 1e-3
    assert found.safe_share.value == 0


def test_every_step_of_the_logarithm_weighs_the_same(tmp_path):
    rates = (1.0, 1.0, 0.0)
    runs = over(tmp_path, (1e-4, 0.9, rates, 0.0), (2e-4, 0.8, rates, 0.0), (8e-4, 0.4, rates, 0.0))
    runs.sort(key=lambda run: run.lr)
    # Trapezoids over log 2 and log 4: (0 + 0.1) / 2 · log 2 + (0.1 + 0.5) / 2 · log 4, over log 8.
    expected = (0.05 * math.log(2) + 0.3 * math.log(4)) / math.log(8)
    assert mean_over_log(runs).value == pytest.approx(expected)
    assert mean_over_log(runs[:1]) == runs[0].tax
