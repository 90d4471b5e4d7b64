"""Line charts as SVG text: crisp at any size, in light and dark, without a plotting library or a script.

A chart is drawn from typed series. Colours are CSS variables: the report defines them for its whole page, and a stand-alone
picture brings its own style sheet, which follows the reader's colour scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dgr_lightning.number_format import short

# After the Okabe-Ito palette (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart; darker on light
# and lighter on dark backgrounds.
_LIGHT = ("#0072b2", "#c2500a", "#00795a", "#a3477f", "#6b6100", "#444444")
_DARK = ("#5ab4ec", "#f28e3c", "#3ecf9f", "#e192c2", "#e0d24a", "#bbbbbb")
NUM_COLORS = len(_LIGHT)

WIDTH, HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 28, 40
_LEGEND_ROW = 17
# Width of a letter at 11 px, rounded up: SVG cannot measure text.
_LETTER = 6.0

CHART_STYLE = """
.chart { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; }
.chart text { fill: var(--ink); } .chart .title { font-size: 13px; font-weight: 600; }
.chart .tick { fill: var(--faint); font-size: 11px; } .chart .axis { fill: var(--faint); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .mean { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .thin { stroke-width: 1.25; opacity: .75; } .chart .dashed { stroke-dasharray: 5 4; }
.chart .band { stroke: none; opacity: .14; } .chart .bar { stroke-width: 1.5; opacity: .7; }
"""


def palette_style() -> str:
    """Returns the CSS variables of text, lines and series, for light and dark backgrounds."""

    def variables(names: dict[str, str], series: Sequence[str]) -> str:
        return " ".join(
            [f"--{name}: {value};" for name, value in names.items()] + [f"--c{i}: {c};" for i, c in enumerate(series)]
        )

    light = variables({"page": "#ffffff", "ink": "#1f2328", "faint": "#59636e", "line": "#d9dee4"}, _LIGHT)
    dark = variables({"page": "#0d1117", "ink": "#e6edf3", "faint": "#9198a1", "line": "#2d333b"}, _DARK)
    colors = " ".join(f".s{i} {{ stroke: var(--c{i}); }} .f{i} {{ fill: var(--c{i}); }}" for i in range(NUM_COLORS))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{colors}\n"


@dataclass(frozen=True)
class Point:
    """A point of a series, with its interval and the label beside it, where it has them."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        name: text in the legend; empty: the legend leaves the line out.
        points: in drawing order, at least one.
        color: index into the palette.
        marker: `circle`, `square`, or None for a line alone.
        look: further CSS classes: `thin`, `dashed`.
        band: draws the intervals as one band instead of bars.
        fill: colours the area between the line and the foot of the chart.
    """

    name: str
    points: Sequence[Point]
    color: int = 0
    marker: str | None = None
    look: str = ""
    band: bool = False
    fill: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its label, range and ticks.

    Attributes:
        label: text beside the axis.
        low: value at its beginning; above 0 on a logarithmic axis.
        high: value at its end, above `low`.
        ticks: values that are marked; round ones are chosen where none are given.
        log: whether it is logarithmic.
        percent: whether values are shares, written in per cent.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float] = ()
    log: bool = False
    percent: bool = False

    def position(self, value: float) -> float:
        """Returns where a value lies: 0 at the beginning of the axis, 1 at its end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def labelled_ticks(self) -> list[tuple[float, str]]:
        """Returns each tick with its text."""
        ticks = self.ticks or round_ticks(self.low, self.high)
        return [(tick, f"{100 * tick:.3g}%" if self.percent else short(tick)) for tick in ticks]


def rate_axis(label: str) -> Axis:
    """Returns an axis for rates from 0 to 100 %, with room for the markers at both ends."""
    return Axis(label, -0.03, 1.03, (0.0, 0.25, 0.5, 0.75, 1.0), percent=True)


def round_ticks(low: float, high: float, num_wanted: int = 5) -> list[float]:
    """Returns about `num_wanted` values in [low, high], multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / num_wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def chart(title: str, series: Sequence[Series], x: Axis, y: Axis, legend: bool = True) -> str:
    """Returns a chart as an inline `<svg class="chart">` of `WIDTH` × `HEIGHT` units that fills its container.

    Title, names and labels are escaped. The page must hold `palette_style` and `CHART_STYLE`.

    Args:
        title: heading of the chart.
        series: drawn in this order, later ones on top.
        x: the horizontal axis.
        y: the vertical axis; its label is not drawn, because the title says what is measured.
        legend: whether to draw a legend, where two or more series have a name.
    """
    named = [line for line in series if line.name]
    explained, rows = _legend(named, 6, 32, WIDTH - 6) if legend and len(named) > 1 else ("", 0)
    frame = _Frame(x, y, top=_TOP + rows * _LEGEND_ROW)
    body = [f'<text class="title" x="4" y="16">{escape(title)}</text>', explained, frame.grid()]
    body += [frame.draw(line) for line in series]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(body)}</svg>"
    )


def picture(title: str, charts: Sequence[str], legend: Sequence[Series], columns: int) -> str:
    """Returns a stand-alone SVG file: charts in a grid under a title and one legend.

    It draws its own background, so it is readable whatever the colours of the page around it.

    Args:
        title: heading of the picture.
        charts: from `chart`, drawn without legends.
        legend: series that the legend explains.
        columns: charts per row.
    """
    gap, head = 16, 64
    width, height = columns * (WIDTH + gap) + gap, head + math.ceil(len(charts) / columns) * (HEIGHT + gap)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title, quote=True)}">',
        f"<style>{palette_style()}{CHART_STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" style="fill: var(--page)"/>',
        f'<text x="{gap + 4}" y="28" style="font-size: 16px; font-weight: 600">{escape(title)}</text>',
        _legend(legend, gap + 6, 50, width - gap)[0],
    ]
    for index, drawn in enumerate(charts):
        at = f'x="{gap + index % columns * (WIDTH + gap)}" y="{head + index // columns * (HEIGHT + gap)}"'
        body.append(drawn.replace("<svg ", f'<svg {at} width="{WIDTH}" height="{HEIGHT}" ', 1))
    return "\n".join([*body, "</svg>", ""])


class _Frame:
    """The area between the axes of one chart. Values beyond the end of an axis are drawn at its edge."""

    def __init__(self, x: Axis, y: Axis, top: int) -> None:
        self.x, self.y, self.top = x, y, top
        self.right, self.bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def at_x(self, value: float) -> float:
        return round(_LEFT + min(max(self.x.position(value), 0.0), 1.0) * (self.right - _LEFT), 1)

    def at_y(self, value: float) -> float:
        return round(self.bottom - min(max(self.y.position(value), 0.0), 1.0) * (self.bottom - self.top), 1)

    def grid(self) -> str:
        parts = []
        for value, text in self.y.labelled_ticks():
            height = self.at_y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{self.right}" y1="{height}" y2="{height}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{height + 4}" text-anchor="end">{escape(text)}</text>')
        for value, text in self.x.labelled_ticks():
            parts.append(
                f'<text class="tick" x="{self.at_x(value)}" y="{self.bottom + 16}" text-anchor="middle">{escape(text)}</text>'
            )
        middle = (_LEFT + self.right) / 2
        parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self.x.label)}</text>')
        return "".join(parts)

    def draw(self, line: Series) -> str:
        corners = [(self.at_x(point.x), self.at_y(point.y)) for point in line.points]
        parts = self._intervals(line)
        if line.fill:
            edge = [(corners[0][0], self.bottom), *corners, (corners[-1][0], self.bottom)]
            parts.append(f'<polygon class="band f{line.color}" points="{" ".join(f"{x},{y}" for x, y in edge)}"/>')
        if len(corners) > 1:
            path = " ".join(f"{x},{y}" for x, y in corners)
            parts.append(f'<polyline class="mean s{line.color} {line.look}" points="{path}"/>')
        # A single point has no line: without a marker it would be invisible.
        marker = line.marker or ("circle" if len(corners) == 1 else None)
        labels: list[tuple[float, float]] = []
        for point, (x, y) in zip(line.points, corners, strict=True):
            if marker is not None:
                tooltip = escape(f"{line.name} {short(point.x)}: {self._value_text(point)}".strip())
                parts.append(f"<g><title>{tooltip}</title>{_marker(marker, x, y, line.color)}</g>")
            # A label that would overlap another one is left out; the marker's tooltip still identifies the point.
            if point.label and all(abs(x - other) > 40 or abs(y - height) > 12 for other, height in labels):
                labels.append((x, y))
                side = ("end", x - 8) if x > self.right - 50 else ("start", x + 8)
                parts.append(
                    f'<text class="tick" x="{side[1]}" y="{y + 4}" text-anchor="{side[0]}">{escape(point.label)}</text>'
                )
        return "".join(parts)

    def _intervals(self, line: Series) -> list[str]:
        ends = [
            (self.at_x(point.x), self.at_y(point.low), self.at_y(point.high))
            for point in line.points
            if point.low is not None and point.high is not None
        ]
        if line.band and ends:
            edge = [f"{x},{high}" for x, _, high in ends] + [f"{x},{low}" for x, low, _ in reversed(ends)]
            return [f'<polygon class="band f{line.color}" points="{" ".join(edge)}"/>']
        return [f'<line class="bar s{line.color}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>' for x, low, high in ends]

    def _value_text(self, point: Point) -> str:
        texts = [f"{100 * v:.1f}%" if self.y.percent else short(v) for v in (point.y, point.low, point.high) if v is not None]
        return texts[0] if len(texts) < 3 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def _legend(series: Sequence[Series], left: float, top: float, right: float) -> tuple[str, int]:
    """Returns the legend, wrapped between `left` and `right`, and its number of rows."""
    parts, x, row = [], left, 0
    for line in series:
        width = 28 + _LETTER * len(line.name) + 12
        if x > left and x + width > right:
            x, row = left, row + 1
        y = top + row * _LEGEND_ROW
        parts.append(f'<line class="mean s{line.color} {line.look}" x1="{x}" x2="{x + 20}" y1="{y}" y2="{y}"/>')
        if line.marker is not None:
            parts.append(_marker(line.marker, x + 10, y, line.color))
        parts.append(f'<text class="tick" x="{x + 26}" y="{y + 4}">{escape(line.name)}</text>')
        x += width
    return "".join(parts), row + 1


def _marker(shape: str, x: float, y: float, color: int) -> str:
    if shape == "square":
        return f'<rect class="f{color}" x="{round(x - 3.5, 1)}" y="{round(y - 3.5, 1)}" width="7" height="7"/>'
    return f'<circle class="f{color}" cx="{x}" cy="{y}" r="4"/>'
