"""The charts of a run's page: curves of the training, and the distributions of the shift."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgr_lightning.report import plots
from dgr_lightning.report.lines import PART_TITLES, SIMILARITY_TITLES
from dgr_lightning.report.plots import Axis, Point, Series
from dgr_lightning.training.curves import STEP

_LOSS_POINTS = 160
_BARS = 40


def curves(metrics: Path) -> list[str]:
    """Returns the charts of a metrics.csv: loss, and what the probes measured; none where there is no file or no row."""
    if not metrics.exists():
        return []
    with open(metrics, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, list[Point]] = {}
    for row in rows:
        for name, cell in row.items():
            if name != STEP and cell:
                columns.setdefault(name, []).append(Point(float(row[STEP]), float(cell)))
    if not columns:
        return []
    last = max(point.x for points in columns.values() for point in points)
    steps = Axis("optimizer step", 0, max(last, 1))
    charts = []
    if loss := columns.get("train/loss"):
        top = max(point.y for point in loss) or 1.0
        width = max(1, len(loss) // _LOSS_POINTS)
        title = "Training loss" if width == 1 else f"Training loss, mean of {width} steps"
        charts.append(plots.chart(title, [Series("", _means(loss, width))], steps, Axis("", 0, 1.05 * top)))
    by_task = [(name, points) for name, points in columns.items() if name.startswith("probe/") and name.endswith("/accuracy")]
    tasks = [
        Series(name.split("/")[1], points, 2 + index % (plots.NUM_COLORS - 2), look="thin dashed")
        for index, (name, points) in enumerate(by_task)
    ]
    if mean := columns.get("probe/reasoning_accuracy"):
        lines = [*(tasks if len(tasks) > 1 else []), Series("mean", mean, 0, "circle")]
        charts.append(plots.chart("Reasoning accuracy, probes", lines, steps, plots.rates("")))
    safety = [
        Series(title, columns[name], color, marker)
        for name, title, color, marker in (
            ("probe/refusal_rate", "refusal of harmful", 0, "circle"),
            ("probe/over_refusal_rate", "over-refusal of benign", 1, "square"),
        )
        if name in columns
    ]
    if safety:
        charts.append(plots.chart("Refusals, probes", safety, steps, plots.rates("")))
    return charts


def _means(points: Sequence[Point], width: int) -> list[Point]:
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [Point(group[-1].x, sum(point.y for point in group) / len(group)) for group in groups]


def nll_charts(record: Mapping[str, Any]) -> list[str]:
    """Returns for trace, answer and both the distribution of the examples' mean NLLs, before and after laid over each other.

    Args:
        record: `before` and `after`, as `shift.nll.record_nll` returned them.
    """
    charts = []
    for part, title in PART_TITLES.items():
        sides = {when: record[when][part] for when in ("before", "after") if record[when][part] is not None}
        if sides and record["before"] == record["after"]:
            sides = {"": sides["before"]}
        if sides:
            charts.append(_histogram(f"NLL of the {title}", sides, "nats per token, mean of an example", begin=0.0))
    return charts


def similarity_charts(record: Mapping[str, Any]) -> list[str]:
    """Returns the distribution of the cosines of what was compared; `record` is `similarity` of the shift's record."""
    return [
        _histogram(f"Similarity: {title}", {"": record[key]}, "cosine", end=1.0)
        for key, title in SIMILARITY_TITLES.items()
        if record[key] is not None
    ]


def _histogram(
    title: str, sides: Mapping[str, Mapping[str, Any]], label: str, begin: float | None = None, end: float | None = None
) -> str:
    """Returns a chart of histograms that have their bins in common; neighbouring bins are merged to what can be told apart.

    Args:
        title: heading.
        sides: name in the legend → what `bootstrap.distribution` returned.
        label: of the values.
        begin: where the axis begins; None: before the first value.
        end: where it ends; None: behind the last value.
    """
    histograms = {name: figures["histogram"] for name, figures in sides.items()}
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
        foot = [Point(edges[0], 0.0), *steps, Point(edges[-1], 0.0)]
        series.append(Series(name, foot, color, fill=True))
        highest = max(highest, *shares)
    x = Axis(label, low + width * first, low + width * (first + merged * len(shares)))
    return plots.chart(title, series, x, Axis("", 0, 1.05 * highest, percent=True))
