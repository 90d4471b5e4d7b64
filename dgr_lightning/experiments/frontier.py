"""The frontier: reasoning against refusal over learning rates, for both arms (vanilla, dgr) and several seeds.

    python -m dgr_lightning.experiments.frontier --lrs 5e-4,1e-3,1.25e-3,1.5e-3,2e-3,3e-3,5e-3 --seeds 1,2,3 --name frontier

runs `python train.py -m name=frontier refine=vanilla,dgr sft.lr=… seed=…`, and writes docs/frontier.md (a table) and
docs/frontier.svg (a picture). The whole grid shares the rewrites and the base's evaluation. `--draw` only reads the points that
are finished. Arguments after `--` are further overrides of every point.

A tax depends on the learning rate so much that no single one compares two arms; the curves do. `experiments/seed_pooling.py`
explains the intervals.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.experiments.grid import FinishedRun, arguments, finished_runs, numbers, override, sweep
from dgr_lightning.experiments.tables import RATES, pooled_rate, rate_cells, table
from dgr_lightning.files import write_text
from dgr_lightning.hashes import content_hash
from dgr_lightning.number_format import UNDEFINED, short
from dgr_lightning.report import svg
from dgr_lightning.report.svg import Axis, Point, Series
from dgr_lightning.statistics.intervals import Estimate

ARMS = ("vanilla", "dgr")
LEARNING_RATES = (5e-4, 1e-3, 1.25e-3, 1.5e-3, 2e-3, 3e-3, 5e-3)

# Colour and marker of each arm, and the colour of the base.
_LOOKS = {"vanilla": (1, "square"), "dgr": (0, "circle")}
_BASE_COLOR = 5


@dataclass(frozen=True)
class GridPoint:
    """A finished point of the grid.

    Attributes:
        arm: refinement strategy.
        lr: peak learning rate.
        seed: seed of the run.
        setting: content hash of everything else that all points of a grid share: model, data, recipe, evaluation.
        refinement: content hash of what the points of an arm share.
        finished: when its summary was written.
        summary: its summary.json.
    """

    arm: str
    lr: float
    seed: int
    setting: str
    refinement: str
    finished: float
    summary: dict[str, Any]


# --- The grid -------------------------------------------------------------------------------------------------------------


def main() -> int:
    """Runs the grid, then writes table and picture; returns the exit code."""
    parser = arguments(__doc__ or "", "frontier", "frontier.md and frontier.svg")
    parser.add_argument("--lrs", type=numbers, default=LEARNING_RATES, help="learning rates, separated by commas")
    args = parser.parse_args()
    failed = False
    if not args.draw:
        grid = [override("refine", ARMS), override("sft.lr", args.lrs), override("seed", args.seeds)]
        failed = not sweep(args.name, [*grid, *args.overrides])
    points = select(read_points(Path("runs", args.name)), args.lrs, args.seeds)
    if not points:
        print(f"runs/{args.name}: no finished point of this grid", file=sys.stderr)
        return 1
    missing = missing_points(points, args.lrs, args.seeds)
    for point in missing:
        print(f"no finished run of {point}", file=sys.stderr)
    text = markdown(points)
    print(text)
    write_text(args.out / "frontier.md", text)
    write_text(args.out / "frontier.svg", drawing(points))
    return 1 if failed or missing else 0


def read_points(folder: Path) -> list[GridPoint]:
    """Returns the finished training runs of a folder as points, in the order in which they finished."""
    return [_point(run) for run in finished_runs(folder) if "tuned" in run.summary]


def _point(run: FinishedRun) -> GridPoint:
    shared = run.hashed()
    refinement, engine = shared.pop("refine"), shared.pop("engine")
    seed, lr = shared.pop("seed"), shared["sft"].pop("lr")
    setting = content_hash(shared, run.config["evaluation"], run.config["judge"], engine["precision"])
    return GridPoint(refinement["strategy"], lr, seed, setting, content_hash(refinement), run.finished, run.summary)


def select(points: Sequence[GridPoint], lrs: Sequence[float], seeds: Sequence[int]) -> list[GridPoint]:
    """Returns the points of a grid, sorted: those that share the setting of the point that finished last.

    Within an arm they also share the refinement of the one that finished last. This leaves out points that an earlier state of
    config or code left in the folder.

    Args:
        points: in the order in which they finished.
        lrs: learning rates of the grid.
        seeds: seeds of the grid.
    """
    grid = [point for point in points if point.lr in lrs and point.seed in seeds and point.arm in ARMS]
    kept = [point for point in grid if point.setting == grid[-1].setting]
    last = {point.arm: point.refinement for point in kept}
    kept = [point for point in kept if point.refinement == last[point.arm]]
    if len(kept) < len(grid):
        print(f"{len(grid) - len(kept)} runs of another setting are left out", file=sys.stderr)
    return sorted(kept, key=lambda point: (ARMS.index(point.arm), point.lr, point.seed))


def missing_points(points: Sequence[GridPoint], lrs: Sequence[float], seeds: Sequence[int]) -> list[str]:
    """Returns the points of a grid that have no finished run."""
    finished = {(point.arm, point.lr, point.seed) for point in points}
    grid = [(arm, lr, seed) for arm in ARMS for lr in lrs for seed in seeds]
    return [f"{arm}, learning rate {short(lr)}, seed {seed}" for arm, lr, seed in grid if (arm, lr, seed) not in finished]


def by_arm_and_lr(points: Sequence[GridPoint]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Returns (arm, learning rate) → summaries, a seed each, in the order of the points."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault((point.arm, point.lr), []).append(point.summary)
    return groups


# --- The table ------------------------------------------------------------------------------------------------------------


def markdown(points: Sequence[GridPoint]) -> str:
    """Returns the report: a line for each arm and learning rate, the base above them."""
    header = ["arm", "learning rate", "seeds", *RATES.values(), "safety tax, points"]
    rows = [["base", UNDEFINED, UNDEFINED, *rate_cells([points[0].summary], "base"), UNDEFINED]]
    for (arm, lr), summaries in by_arm_and_lr(points).items():
        rows.append([arm, short(lr), str(len(summaries)), *rate_cells(summaries), _mean_tax(summaries)])
    return (
        "# Frontier\n\n"
        "Mean over seeds in per cent, 95 % interval over seeds and problems. Written by "
        "`dgr_lightning/experiments/frontier.py`; `seed_pooling.py` in the same folder explains the intervals.\n\n"
        f"{table(header, rows)}\n\n![reasoning and refusal against the learning rate](frontier.svg)\n"
    )


def _mean_tax(summaries: Sequence[dict[str, Any]]) -> str:
    taxes = [summary["tax"]["points"]["value"] for summary in summaries]
    return UNDEFINED if None in taxes else f"{statistics.fmean(taxes):.1f}"


# --- The picture ----------------------------------------------------------------------------------------------------------

Curves = dict[str, dict[float, Point]]
"""arm → learning rate → the pooled rate of the tuned models over it, where it is defined."""


def drawing(points: Sequence[GridPoint]) -> str:
    """Returns the picture: each rate against the learning rate, and reasoning against over-refusal."""
    curves = {rate: _curves(points, rate) for rate in RATES}
    lrs = sorted({point.lr for point in points})
    margin = 1.15
    axis = Axis("learning rate", lrs[0] / margin, lrs[-1] * margin, _spaced(lrs), log=True)
    base = {rate: Estimate(**points[0].summary["base"]["headline"][rate]) for rate in RATES}
    charts = [_rate_chart(title, curves[rate], base[rate], axis) for rate, title in RATES.items()]
    if tradeoff := _tradeoff_lines(curves["over_refusal_rate"], curves["reasoning_accuracy"]):
        title, over_refusal = "reasoning accuracy against over-refusal", svg.rate_axis("over-refusal of benign")
        charts.append(svg.chart(title, tradeoff, over_refusal, svg.rate_axis(""), legend=False))
    legend = [Series("base", (), _BASE_COLOR, look="thin dashed"), *(Series(arm, (), *_LOOKS[arm]) for arm in ARMS)]
    num_seeds = len({point.seed for point in points})
    title = f"Vanilla SFT and DGR over learning rates, {num_seeds} seeds, 95 % intervals"
    return svg.picture(title, charts, legend, columns=2)


def _curves(points: Sequence[GridPoint], rate: str) -> Curves:
    curves: Curves = {}
    for (arm, lr), summaries in by_arm_and_lr(points).items():
        pooled = pooled_rate(summaries, rate)
        if pooled.value is not None:
            curves.setdefault(arm, {})[lr] = Point(lr, pooled.value, pooled.low, pooled.high)
    return curves


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


if __name__ == "__main__":
    sys.exit(main())
