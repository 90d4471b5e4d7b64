"""The charts of a run's page: training curves, the budget curve, and the distributions of the shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.files import read_json
from dgr_lightning.report import svg
from dgr_lightning.report.lines import PART_TITLES, SIMILARITY_TITLES
from dgr_lightning.report.svg import Axis, Point, Series
from dgr_lightning.training.curves import read_curves

_LOSS_POINTS = 160
_BARS = 40

# --- Curves ---------------------------------------------------------------------------------------------------------------


def curve_charts(metrics: Path) -> list[str]:
    """Returns the charts of a metrics.csv: loss, and the rates of the probes; none without a file or without a row."""
    columns = {name: [Point(*point) for point in points] for name, points in read_curves(metrics).items()}
    if not columns:
        return []
    last = max(point.x for points in columns.values() for point in points)
    steps = Axis("optimizer step", 0, max(last, 1))
    charts = []
    if loss := columns.get("train/loss"):
        charts.append(_loss_chart(loss, steps))
    if accuracy := columns.get("probe/reasoning_accuracy"):
        lines = [*_task_lines(columns), Series("mean", accuracy, 0, "circle")]
        charts.append(svg.chart("Reasoning accuracy, probes", lines, steps, svg.rate_axis("")))
    refusals = [
        Series(title, columns[name], color, marker)
        for name, title, color, marker in (
            ("probe/refusal_rate", "refusal of harmful", 0, "circle"),
            ("probe/over_refusal_rate", "over-refusal of benign", 1, "square"),
        )
        if name in columns
    ]
    if refusals:
        charts.append(svg.chart("Refusals, probes", refusals, steps, svg.rate_axis("")))
    return charts


def checkpoint_charts(curve: Path) -> list[str]:
    """Returns the chart of evaluated checkpoints, with intervals; none where no checkpoint was evaluated."""
    columns = {name: dict(points) for name, points in read_curves(curve).items()}
    lines = []
    for color, (metric, title, marker) in enumerate(
        (
            ("reasoning_accuracy", "reasoning", "circle"),
            ("refusal_rate", "refusal of harmful", "square"),
            ("over_refusal_rate", "over-refusal of benign", "square"),
        )
    ):
        values, low, high = (columns.get(f"evaluation/{metric}{end}", {}) for end in ("", "_low", "_high"))
        points = [Point(step, value, low.get(step), high.get(step)) for step, value in values.items()]
        if points:
            lines.append(Series(title, points, color, marker))
    if not lines:
        return []
    last = max(point.x for line in lines for point in line.points)
    return [svg.chart("Evaluation of checkpoints", lines, Axis("optimizer step", 0, max(last, 1)), svg.rate_axis(""))]


def _loss_chart(loss: Sequence[Point], steps: Axis) -> str:
    width = max(1, len(loss) // _LOSS_POINTS)
    title = "Training loss" if width == 1 else f"Training loss, mean of {width} steps"
    top = max(point.y for point in loss) or 1.0
    return svg.chart(title, [Series("", _means(loss, width))], steps, Axis("", 0, 1.05 * top))


def _means(points: Sequence[Point], width: int) -> list[Point]:
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [Point(group[-1].x, sum(point.y for point in group) / len(group)) for group in groups]


def _task_lines(columns: Mapping[str, Sequence[Point]]) -> list[Series]:
    """Returns the accuracy of each reasoning task; nothing for a single one, which is the mean itself."""
    by_task = [(name, points) for name, points in columns.items() if name.startswith("probe/") and name.endswith("/accuracy")]
    if len(by_task) < 2:
        return []
    return [
        Series(name.split("/")[1], points, 2 + index % (svg.NUM_COLORS - 2), look="thin dashed")
        for index, (name, points) in enumerate(by_task)
    ]


def budget_charts(file: Path) -> list[str]:
    """Returns the chart of a budget.json: accuracy over token budgets; none without a file, or where one cap says it all."""
    curve = read_json(file).get("headline") if file.exists() else None
    if curve is None or len(curve["caps"]) < 2:
        return []
    lines = []
    for index, subject in enumerate(subject for subject in SUBJECTS if subject in curve):
        points = [
            Point(cap, one["value"], one["low"], one["high"])
            for cap, one in zip(curve["caps"], curve[subject], strict=True)
            if one["value"] is not None
        ]
        lines.append(Series(subject, points, 5 - 5 * index, "circle", look="thin", band=True))
    caps = curve["caps"]
    axis = Axis("tokens, thinking included", caps[0], caps[-1], caps[:: -(-len(caps) // 6)], log=True)
    return [svg.chart("Reasoning accuracy under smaller budgets", lines, axis, svg.rate_axis(""))]


# --- Distributions --------------------------------------------------------------------------------------------------------


def nll_charts(record: Mapping[str, Any]) -> list[str]:
    """Returns for trace, answer and both the distribution of the examples' mean NLLs, before and after in one chart.

    Args:
        record: `before` and `after`, each from `shift.nll.record_nll`.
    """
    charts = []
    for part, title in PART_TITLES.items():
        sets = {when: record[when][part] for when in ("before", "after") if record[when][part] is not None}
        if sets and record["before"] == record["after"]:
            sets = {"": sets["before"]}
        if sets:
            charts.append(_histogram(f"NLL of the {title}", sets, "nats per token, mean of an example", begin=0.0))
    return charts


def similarity_charts(record: Mapping[str, Any]) -> list[str]:
    """Returns the distribution of cosines of each comparison; `record` is `similarity` of the shift's record."""
    return [
        _histogram(f"Similarity: {title}", {"": record[key]}, "cosine", end=1.0)
        for key, title in SIMILARITY_TITLES.items()
        if record[key] is not None
    ]


def _histogram(
    title: str, sets: Mapping[str, Mapping[str, Any]], label: str, begin: float | None = None, end: float | None = None
) -> str:
    """Returns histograms with common bins in one chart; neighbouring bins are merged until at most `_BARS` remain.

    Args:
        title: heading.
        sets: name in the legend → result of `bootstrap.distribution`.
        label: of the horizontal axis.
        begin: where the axis begins; None: at the first bin that is not empty.
        end: where it ends; None: after the last bin that is not empty.
    """
    histograms = {name: figures["histogram"] for name, figures in sets.items()}
    low, width = (next(iter(histograms.values()))[key] for key in ("low", "width"))
    filled = [i for histogram in histograms.values() for i, count in enumerate(histogram["counts"]) if count]
    first = min(filled) if begin is None else round((begin - low) / width)
    last = max(filled) + 1 if end is None else round((end - low) / width)
    merged = max(1, -(-(last - first) // _BARS))
    series, highest = [], 0.0
    for color, (name, histogram) in enumerate(histograms.items()):
        counts = histogram["counts"] + [0] * (last + merged)
        shares = [sum(counts[i : i + merged]) / sum(counts) for i in range(first, last, merged)]
        edges = [low + width * (first + merged * i) for i in range(len(shares) + 1)]
        steps = [Point(edge, share) for i, share in enumerate(shares) for edge in (edges[i], edges[i + 1])]
        outline = [Point(edges[0], 0.0), *steps, Point(edges[-1], 0.0)]
        series.append(Series(name, outline, color, fill=True))
        highest = max(highest, *shares)
    x = Axis(label, low + width * first, low + width * (first + merged * len(shares)))
    return svg.chart(title, series, x, Axis("", 0, 1.05 * highest, percent=True))
