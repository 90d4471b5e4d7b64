"""Rows of intervals as SVG text: rates of several models side by side, or differences around zero (a forest plot).

A row has a name and a mark for each model, drawn under one another. Colours, fonts and escaping are those of `svg`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from dgr_lightning.report.svg import CHART_STYLE, NUM_COLORS, WIDTH, Axis, palette_style
from dgr_lightning.statistics.intervals import Estimate

_LEFT, _RIGHT, _TOP, _BOTTOM = 118, 14, 30, 38
_ROW, _MARK = 22, 11  # heights of a row with one mark, and of each further mark
_MOST_LETTERS = 19  # of a name that fits left of the rows

FOREST_STYLE = """
.chart .hollow { fill: var(--page); stroke-width: 2; } .chart .zero { stroke: var(--faint); stroke-width: 1; }
.chart .strong { font-weight: 600; }
"""


@dataclass(frozen=True)
class Mark:
    """An estimate in a row.

    Attributes:
        estimate: value and interval; an undefined one is not drawn.
        text: said by its tooltip.
        color: index into the palette.
        hollow: whether the marker is an outline: a difference that is not significant.
    """

    estimate: Estimate
    text: str
    color: int = 0
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its name, whether that is printed strongly, and its marks from top to bottom."""

    name: str
    marks: Sequence[Mark]
    strong: bool = False


def forest(title: str, rows: Sequence[Row], axis: Axis, zero: bool = False) -> str:
    """Returns the rows as an inline `<svg class="chart">` that fills its container.

    The page must hold `svg.palette_style`, `svg.CHART_STYLE` and `FOREST_STYLE`.

    Args:
        title: heading.
        rows: from top to bottom.
        axis: the horizontal one.
        zero: whether to draw a line at 0.
    """
    heights = [_ROW + _MARK * (len(row.marks) - 1) for row in rows]
    bottom = _TOP + sum(heights)
    right = WIDTH - _RIGHT

    def at(value: float) -> float:
        return round(_LEFT + min(max(axis.position(value), 0.0), 1.0) * (right - _LEFT), 1)

    body = [f'<text class="title" x="4" y="16">{escape(title)}</text>']
    for value, text in axis.labelled_ticks():
        body.append(f'<line class="grid" x1="{at(value)}" x2="{at(value)}" y1="{_TOP}" y2="{bottom}"/>')
        body.append(f'<text class="tick" x="{at(value)}" y="{bottom + 15}" text-anchor="middle">{escape(text)}</text>')
    if zero:
        body.append(f'<line class="zero" x1="{at(0.0)}" x2="{at(0.0)}" y1="{_TOP}" y2="{bottom}"/>')
    body.append(
        f'<text class="axis" x="{(_LEFT + right) / 2}" y="{bottom + 32}" text-anchor="middle">{escape(axis.label)}</text>'
    )
    top = float(_TOP)
    for row, height in zip(rows, heights, strict=True):
        look = ' class="strong"' if row.strong else ""
        name = row.name if len(row.name) <= _MOST_LETTERS else f"{row.name[: _MOST_LETTERS - 1]}…"
        middle = top + height / 2
        body.append(f'<text{look} x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        first = middle - _MARK * (len(row.marks) - 1) / 2
        for index, mark in enumerate(row.marks):
            body.append(_drawn(mark, first + _MARK * index, at))
        top += height
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {bottom + _BOTTOM}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(body)}</svg>"
    )


def _drawn(mark: Mark, y: float, at: Callable[[float], float]) -> str:
    estimate, color = mark.estimate, mark.color % NUM_COLORS
    if estimate.value is None:
        return ""
    parts = [f"<g><title>{escape(mark.text)}</title>"]
    if estimate.low is not None and estimate.high is not None:
        ends = f'x1="{at(estimate.low)}" x2="{at(estimate.high)}"'
        parts.append(f'<line class="bar s{color}" {ends} y1="{y}" y2="{y}"/>')
    look = f"hollow s{color}" if mark.hollow else f"f{color}"
    # A round marker for the first colours of the palette, a square one where they begin again.
    if mark.color // NUM_COLORS % 2:
        parts.append(f'<rect class="{look}" x="{at(estimate.value) - 3.5}" y="{y - 3.5}" width="7" height="7"/>')
    else:
        parts.append(f'<circle class="{look}" cx="{at(estimate.value)}" cy="{y}" r="4"/>')
    return "".join([*parts, "</g>"])


def stand_alone(chart: str, names: Sequence[str], *, colored: bool = True) -> str:
    """Returns a chart from `forest` as an SVG file with its own background and style.

    Args:
        chart: the inline chart.
        names: of the models, below the chart.
        colored: whether each has the colour of its marks.
    """
    size = chart.partition('viewBox="0 0 ')[2].partition('"')[0]
    width, height = (float(side) for side in size.split())
    legend = [
        (f'<circle class="f{index % NUM_COLORS}" cx="12" cy="{height + 12 + 18 * index}" r="4"/>' if colored else "")
        + f'<text x="{24 if colored else 8}" y="{height + 16 + 18 * index}">{escape(name)}</text>'
        for index, name in enumerate(names)
    ]
    whole = height + 18 * len(names) + (8 if names else 0)
    style = f"<style>{palette_style()}{CHART_STYLE}{FOREST_STYLE}</style>"
    page = f'<rect width="{width}" height="{whole}" rx="8" style="fill: var(--page)"/>'
    opened = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" width="{2 * width}" height="{2 * whole}" '
    body = chart.partition(">")[2].removesuffix("</svg>")
    return f'{opened}class="chart" role="img">{style}{page}{body}{"".join(legend)}</svg>\n'


def difference_axis(estimates: Sequence[Estimate], label: str) -> Axis:
    """Returns an axis around 0, the same to both sides, on which all the intervals of differences lie."""
    ends = [abs(end) for one in estimates for end in (one.low, one.value, one.high) if end is not None]
    reach = max([0.05, *ends]) * 1.08
    return Axis(label, -reach, reach, percent=True)
