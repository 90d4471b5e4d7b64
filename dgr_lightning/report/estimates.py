"""Estimates as text: a rate in per cent, a difference with its sign, a plain number, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgr_lightning.number_format import UNDEFINED, minus
from dgr_lightning.statistics.intervals import Estimate


def estimate_of(record: Mapping[str, Any] | None) -> Estimate | None:
    """Returns an estimate from its JSON object in summary.json; None where it is undefined."""
    return None if record is None or record["value"] is None else Estimate(**record)


def percent(estimate: Estimate | None) -> str:
    """Returns a rate in per cent: `98.7 (97.1–99.4)`."""
    if estimate is None or estimate.value is None:
        return UNDEFINED
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def signed(estimate: Estimate | None, scale: float = 100.0) -> str:
    """Returns a difference, multiplied by `scale`: `−0.5 (−1.2, +0.3)`."""
    texts = [minus(f"{scale * end + 0.0:+.1f}") for end in _ends(estimate)]
    return f"{texts[0]} ({texts[1]}, {texts[2]})" if len(texts) == 3 else (texts or [UNDEFINED])[0]


def number(estimate: Estimate | None) -> str:
    """Returns a number with three decimals, from 100 on without any: `0.153 (0.140 to 0.166)`."""
    ends = _ends(estimate)
    decimals = 3 if ends and abs(ends[0]) < 100 else 0
    texts = [minus(f"{end + 0.0:,.{decimals}f}") for end in ends]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if len(texts) == 3 else (texts or [UNDEFINED])[0]


def without_interval(text: str) -> str:
    """Returns the value alone of a text that one of these functions made."""
    return text.partition(" (")[0]


def interval_alone(text: str) -> str:
    """Returns the interval of a text that one of these functions made, in its brackets; nothing where it has none."""
    _, bracket, interval = text.partition(" (")
    return f"({interval}" if bracket else ""


def _ends(estimate: Estimate | None) -> list[float]:
    """Returns value, lower and upper limit, as far as they are defined; none without a value."""
    if estimate is None or estimate.value is None:
        return []
    return [end for end in (estimate.value, estimate.low, estimate.high) if end is not None]
