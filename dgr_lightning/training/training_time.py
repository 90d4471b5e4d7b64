"""How long optimizer steps take, estimated from their floating-point operations: pure functions, for a plan.

What share of the device's peak a training reaches is assumed, not measured: it grows with the tokens that a device has in a
step, since weights are read, gathered and updated once a step, however few tokens there are.
"""

from __future__ import annotations

FULL_MFU, HALF_TOKENS = 0.35, 1500
"""With many tokens a device and step; tokens at which half of it is reached: 8 examples on 8 GPUs reach 5 to 15 %."""

CPU_MFU = 0.25
"""Of the measured peak of a CPU's matrix products."""


def assumed_mfu(tokens_per_device: float) -> float:
    """Returns the share of the peak of GPUs that a training is assumed to reach.

    Args:
        tokens_per_device: of a step.
    """
    return FULL_MFU * tokens_per_device / (tokens_per_device + HALF_TOKENS)


def training_seconds(flops: float, peak: float, num_devices: int, mfu: float, recompute_every: int = 0) -> float:
    """Returns about how long a training's optimizer steps take.

    Args:
        flops: of all steps on all devices, nothing recomputed.
        peak: of a device, FLOP/s.
        num_devices: devices.
        mfu: share of it that is reached, recomputation aside.
        recompute_every: activation checkpointing of every n-th layer, whose forward pass, a third of the whole, runs twice.
    """
    again = 1 / (3 * recompute_every) if recompute_every else 0.0
    return flops * (1 + again) / (peak * num_devices * mfu)
