"""The objective that a sweep minimises: the safety tax and the share of harmful requests answered, both on the probe split.

The evaluation split is never chosen on: it is reported, for the chosen point alone.
"""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.training.curves import read_curves

REASONING, REFUSAL = "probe/reasoning_accuracy", "probe/refusal_rate"


def objective(metrics: Path) -> float | tuple[float, float] | None:
    """Returns the objective of a finished training, for a sweeper such as Optuna's.

    Args:
        metrics: the run's metrics.csv.

    Returns:
        (tax in points, 1 - refusal rate), from the first and the last point of the curves; one number where there are
        curves of one kind only; None without curves.
    """
    curves = read_curves(metrics)
    values = []
    if reasoning := curves.get(REASONING):
        values.append(100 * (reasoning[0][1] - reasoning[-1][1]))
    if refusal := curves.get(REFUSAL):
        values.append(1 - refusal[-1][1])
    if not values:
        return None
    return (values[0], values[1]) if len(values) == 2 else values[0]
