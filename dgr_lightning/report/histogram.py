"""A histogram of token counts for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WIDTH = 40


def histogram(values: Sequence[int], limit: int | None = None, bins: int = 12) -> Text:
    """Returns a bar for every range of values, with its number of values.

    Args:
        values: counts of at least 0; at least one.
        limit: ranges that lie beyond it are red; one that holds it ends there.
        bins: ranges at most, of equal width but for the one that ends at the limit.
    """
    edges = _edges(min(values), max(values), limit, bins)
    counts = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    digits = len(f"{edges[-1] - 1:,}")
    text = Text()
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        style = "red" if limit is not None and low > limit else "green"
        text.append(f"{low:>{digits},} – {high - 1:>{digits},}  ", "dim")
        text.append(f"{_bar(count / max(counts))} {count:,}\n", style)
    text.rstrip()
    return text


def _edges(low: int, high: int, limit: int | None, bins: int) -> list[int]:
    """Returns where ranges begin, and one past the end of the last."""
    width = _round_up(max(1, -(-(high - low + 1) // bins)))
    edges = list(range(low // width * width, high + 1, width))
    edges.append(edges[-1] + width)
    if limit is not None and edges[0] <= limit < high:
        edges = sorted({*edges, limit + 1})
    return edges


def _round_up(width: int) -> int:
    """Returns the next of 1, 2, 5, 10, 20, 50 …"""
    scale = 1
    while True:
        for factor in (1, 2, 5):
            if factor * scale >= width:
                return factor * scale
        scale *= 10


def _bar(share: float) -> str:
    eighths = round(share * _WIDTH * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()) or ("▏" if share else "")
