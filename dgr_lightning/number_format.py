"""How numbers are written for people: in tables, cards, reports and along the axes of charts."""

from __future__ import annotations

UNDEFINED = "–"
"""Stands where there is no number."""


def nats(value: float | None, undefined: str = UNDEFINED) -> str:
    """Returns a loss or a negative log-likelihood in nats with three decimals."""
    return undefined if value is None else f"{value:.3f}"


def minus(text: str) -> str:
    """Returns a formatted number with a real minus sign instead of a hyphen."""
    return text.replace("-", "−")


def short(value: float) -> str:
    """Returns a number as people write it on an axis: 0.0003 as 3e-4, 12000 as 12k."""
    if value and abs(value) < 0.01:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"
