"""The frontier: reasoning against refusal over learning rates, for both arms (vanilla, dgr), as a table and as a picture.

A tax depends on the learning rate so much that no single one compares two arms; the curves do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dgr_lightning.experiments.grid import FinishedRun, grouped
from dgr_lightning.experiments.tables import HEADINGS, INTERVALS, headings, rate_cells, replicated_rate, table, tax_cells
from dgr_lightning.number_format import UNDEFINED, short
from dgr_lightning.report import svg
from dgr_lightning.report.svg import Axis, Point, Series
from dgr_lightning.statistics.intervals import Estimate

ARMS = ("vanilla", "dgr")

# Colour and marker of each arm, and the colour of the base.
_LOOKS = {"vanilla": (1, "square"), "dgr": (0, "circle")}
_BASE_COLOR = 5


def select(runs: Sequence[FinishedRun], lrs: Sequence[float], seeds: Sequence[int], bases: Sequence[int]) -> list[FinishedRun]:
    """Returns the runs of a grid, sorted by arm, learning rate, base and seed; of two of one point the later one.

    Args:
        runs: those of one command, in the order in which they finished.
        lrs: learning rates of the grid.
        seeds: seeds of the grid.
        bases: model seeds of the grid.
    """
    grid = [run for run in runs if run.lr in lrs and run.seed in seeds and run.base in bases and run.arm in ARMS]
    last = {(ARMS.index(run.arm), run.lr, run.base, run.seed): run for run in grid}
    return [last[point] for point in sorted(last)]


def missing(runs: Sequence[FinishedRun], lrs: Sequence[float], seeds: Sequence[int], bases: Sequence[int]) -> list[str]:
    """Returns the points of a grid that have no finished run."""
    finished = {(run.arm, run.lr, run.base, run.seed) for run in runs}
    grid = [(arm, lr, base, seed) for arm in ARMS for lr in lrs for base in bases for seed in seeds]
    return [
        f"{arm}, learning rate {short(lr)}, base {base}, seed {seed}"
        for arm, lr, base, seed in grid
        if (arm, lr, base, seed) not in finished
    ]


def by_arm_and_lr(runs: Sequence[FinishedRun]) -> dict[tuple[str, float], list[FinishedRun]]:
    """Returns (arm, learning rate) → runs, in the order of the runs."""
    return grouped(runs, lambda run: (run.arm, run.lr))


# --- The table ------------------------------------------------------------------------------------------------------------


def markdown(runs: Sequence[FinishedRun], origin: str) -> str:
    """Returns the report: a line for each arm and learning rate, the bases above them.

    Args:
        runs: of the grid.
        origin: a sentence on the command, the machine and the date that they came from.
    """
    header = ["arm", "learning rate", "bases", "runs", *headings([*HEADINGS.values(), "safety tax, points"])]
    bases = {run.base: run for run in runs}
    rows = [["base", UNDEFINED, str(len(bases)), UNDEFINED, *rate_cells(list(bases.values()), "base"), UNDEFINED, UNDEFINED]]
    for (arm, lr), group in by_arm_and_lr(runs).items():
        num_bases = len({run.base for run in group})
        rows.append([arm, short(lr), str(num_bases), str(len(group)), *rate_cells(group), *tax_cells(group)])
    return (
        f"# Frontier\n\n{INTERVALS} {origin}\n\n{table(header, rows)}\n\n"
        "![reasoning and refusal against the learning rate](frontier.svg)\n"
    )


# --- The picture ----------------------------------------------------------------------------------------------------------

Curves = dict[str, dict[float, Point]]
"""arm → learning rate → the pooled rate of the tuned models over it, where it is defined."""


def drawing(runs: Sequence[FinishedRun]) -> str:
    """Returns the picture: each rate against the learning rate, and reasoning against over-refusal."""
    curves = {rate: _curves(runs, rate) for rate in HEADINGS}
    lrs = sorted({run.lr for run in runs})
    margin = 1.15
    axis = Axis("learning rate", lrs[0] / margin, lrs[-1] * margin, _spaced(lrs), log=True)
    bases = list({run.base: run for run in runs}.values())
    base = {rate: _pooled(bases, rate, "base") for rate in HEADINGS}
    charts = [_rate_chart(title, curves[rate], base[rate], axis) for rate, title in HEADINGS.items()]
    if tradeoff := _tradeoff_lines(curves["over_refusal_rate"], curves["reasoning_accuracy"]):
        title, over_refusal = "reasoning accuracy against over-refusal", svg.rate_axis("over-refusal of benign")
        charts.append(svg.chart(title, tradeoff, over_refusal, svg.rate_axis(""), legend=False))
    legend = [Series("base", (), _BASE_COLOR, look="thin dashed"), *(Series(arm, (), *_LOOKS[arm]) for arm in ARMS)]
    num_seeds = len({run.seed for run in runs})
    title = f"Vanilla SFT and DGR, {len(bases)} bases × {num_seeds} seeds, 95 % intervals of the mean"
    return svg.picture(title, charts, legend, columns=2)


def _curves(runs: Sequence[FinishedRun], rate: str) -> Curves:
    curves: Curves = {}
    for (arm, lr), group in by_arm_and_lr(runs).items():
        pooled = _pooled(group, rate, "tuned")
        if pooled.value is not None:
            curves.setdefault(arm, {})[lr] = Point(lr, pooled.value, pooled.low, pooled.high)
    return curves


def _pooled(runs: Sequence[FinishedRun], rate: str, side: str) -> Estimate:
    return replicated_rate(runs, rate, side).mean


def _rate_chart(title: str, curves: Curves, base: Estimate, axis: Axis) -> str:
    """Returns one rate against the learning rate, with the base as a band across the chart."""
    lines = []
    if base.value is not None:
        ends = [Point(lr, base.value, base.low, base.high) for lr in (axis.low, axis.high)]
        lines.append(Series("base", ends, _BASE_COLOR, look="thin dashed", band=True))
    lines += [Series(arm, list(curve.values()), *_LOOKS[arm]) for arm, curve in curves.items()]
    return svg.chart(title, lines, axis, svg.rate_axis(""), legend=False)


def _tradeoff_lines(across: Curves, up: Curves) -> list[Series]:
    """Returns for each arm one rate against the other, over the learning rates at which both are defined."""
    lines = []
    for arm in across:
        lrs = [lr for lr in across[arm] if lr in up.get(arm, {})]
        # One arm's labels are enough: both have the same learning rates in the same order.
        labels = [short(lr) if arm == "vanilla" else "" for lr in lrs]
        points = [Point(across[arm][lr].y, up[arm][lr].y, label=label) for lr, label in zip(lrs, labels, strict=True)]
        if points:
            lines.append(Series(arm, points, *_LOOKS[arm], look="thin"))
    return lines


def _spaced(lrs: Sequence[float]) -> list[float]:
    """Returns the learning rates that leave room for their label beside the one before."""
    spaced = [lrs[0]]
    for lr in lrs[1:]:
        if math.log(lr / spaced[-1]) >= math.log(lrs[-1] / lrs[0]) / 9:
            spaced.append(lr)
    return spaced
