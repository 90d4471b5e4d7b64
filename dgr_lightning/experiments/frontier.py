"""The frontier: reasoning against refusal over learning rates, both arms (vanilla, dgr), several seeds.

    python -m dgr_lightning.experiments.frontier --lrs 5e-4,1e-3,1.25e-3,1.5e-3,2e-3,3e-3,5e-3 --seeds 1,2,3 --name frontier

runs `python train.py -m name=frontier refine=vanilla,dgr sft.lr=… seed=…`, and writes docs/frontier.md (a table) and
docs/frontier.svg (a picture). A point that is done is not run again, so the same command goes on where it was stopped; rewrites
and the base's evaluation are shared by the whole grid. `--draw` only reads what is there. What follows `--` are more overrides.

The size of a tax depends on the learning rate so much that no single one compares two arms; the curves do.

Intervals (95 %). The mean over S seeds is uncertain in two ways: training differs from seed to seed, and the problems are a
sample. The seeds' part is Student's t with S - 1 degrees of freedom on their values. The problems' part is the mean of the
runs' own one-sided widths, not divided by S, because all seeds answer the same problems. The two are added in quadrature on
either side, as in MOVER (Zou and Donner 2008, Stat Med 27:1693). That errs on the wide side: the seeds' part holds some of the
problems' noise already.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.files import write_text
from dgr_lightning.hashes import content_hash
from dgr_lightning.number_format import short
from dgr_lightning.report import svg
from dgr_lightning.report.svg import Axis, Point, Series

ROOT = Path(__file__).resolve().parents[2]
ARMS = ("vanilla", "dgr")
LEARNING_RATES = "5e-4,1e-3,1.25e-3,1.5e-3,2e-3,3e-3,5e-3"
METRICS = {
    "reasoning_accuracy": "reasoning accuracy",
    "refusal_rate": "refusal of harmful",
    "over_refusal_rate": "over-refusal of benign",
}
# Student's t, 0.975 quantile, by degrees of freedom; beyond them the normal one is near enough.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Measure = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """One finished point.

    Attributes:
        arm: refinement strategy.
        lr: peak learning rate.
        seed: seed of the run.
        setting: hash of everything else that all points of a grid share: model, data, recipe, evaluation.
        refinement: hash of what the points of an arm share.
        finished: time of its summary.
        summary: its summary.json.
    """

    arm: str
    lr: float
    seed: int
    setting: str
    refinement: str
    finished: float
    summary: dict[str, Any]


def main() -> int:
    """Runs the grid, then writes table and picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lrs", type=_floats, default=_floats(LEARNING_RATES), help="learning rates, with commas")
    parser.add_argument("--seeds", type=_integers, default=(1, 2, 3), help="seeds, with commas")
    parser.add_argument("--name", default="frontier", help="the runs lie in runs/<name>")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where frontier.md and frontier.svg go")
    parser.add_argument("--draw", action="store_true", help="run nothing: read the points that are done")
    parser.add_argument("overrides", nargs="*", help="after --: overrides of every point, such as data=micro-r1act")
    args = parser.parse_args()

    failed = False
    if not args.draw:
        grid = [f"refine={','.join(ARMS)}", f"sft.lr={','.join(map(repr, args.lrs))}", f"seed={','.join(map(str, args.seeds))}"]
        command = [sys.executable, "train.py", "-m", f"name={args.name}", *grid, *args.overrides]
        print(" ".join(command), flush=True)
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    runs = select(read_runs(ROOT / "runs" / args.name), args.lrs, args.seeds)
    if not runs:
        print(f"runs/{args.name}: no finished point of this grid", file=sys.stderr)
        return 1
    missing = missing_points(runs, args.lrs, args.seeds)
    for point in missing:
        print(f"not there: {point}", file=sys.stderr)
    text = markdown(runs)
    print(text)
    write_text(args.out / "frontier.md", text)
    write_text(args.out / "frontier.svg", drawing(runs))
    return 1 if failed or missing else 0


def read_runs(folder: Path) -> list[Run]:
    """Returns the finished training runs of a folder."""
    runs = []
    for path in sorted(folder.glob("*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        if "tuned" not in summary:
            continue
        config = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
        # What was hashed, contents of model and data included, but for what a grid varies.
        described = json.loads((path.parent / ".run.json").read_text(encoding="utf-8"))["described"]
        refinement, engine = described.pop("refine"), described.pop("engine")
        seed, lr = described.pop("seed"), described["sft"].pop("lr")
        setting = content_hash(described, config["evaluation"], config["judge"], engine["precision"])
        point = (refinement["strategy"], lr, seed, setting, content_hash(refinement))
        runs.append(Run(*point, path.stat().st_mtime, summary))
    return runs


def select(runs: Sequence[Run], lrs: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """Returns the runs of a grid, sorted: those that share the setting of the run that finished last.

    Within an arm the same holds of the refinement. What an earlier state of config or code left in the folder is left out.
    """
    grid = sorted(
        (run for run in runs if run.lr in lrs and run.seed in seeds and run.arm in ARMS), key=lambda run: run.finished
    )
    kept = [run for run in grid if run.setting == grid[-1].setting]
    last = {run.arm: run.refinement for run in kept}
    kept = [run for run in kept if run.refinement == last[run.arm]]
    if len(kept) < len(grid):
        print(f"{len(grid) - len(kept)} runs of another setting are left out", file=sys.stderr)
    return sorted(kept, key=lambda run: (ARMS.index(run.arm), run.lr, run.seed))


def missing_points(runs: Sequence[Run], lrs: Sequence[float], seeds: Sequence[int]) -> list[str]:
    """Returns the points of a grid that have no finished run."""
    there = {(run.arm, run.lr, run.seed) for run in runs}
    points = ((arm, lr, seed) for arm in ARMS for lr in lrs for seed in seeds)
    return [f"{arm}, learning rate {short(lr)}, seed {seed}" for arm, lr, seed in points if (arm, lr, seed) not in there]


def pool(measures: Sequence[Measure]) -> Estimate:
    """Returns the mean of one rate over seeds with its interval; see the head of this file."""
    values = [measure["value"] for measure in measures]
    mean = statistics.fmean(values)
    seeds = 0.0
    if len(values) > 1:
        student = _STUDENT[len(values) - 2] if len(values) - 2 < len(_STUDENT) else 1.96
        seeds = student * statistics.stdev(values) / math.sqrt(len(values))
    below = statistics.fmean(measure["value"] - measure["low"] for measure in measures)
    above = statistics.fmean(measure["high"] - measure["value"] for measure in measures)
    return Estimate(mean, max(0.0, mean - math.hypot(seeds, below)), min(1.0, mean + math.hypot(seeds, above)))


def estimates(runs: Sequence[Run], metric: str) -> dict[str, dict[float, Estimate]]:
    """Returns arm → learning rate → the pooled headline of the tuned models; points where it is undefined are left out."""
    found: dict[str, dict[float, Estimate]] = {}
    for arm in ARMS:
        for lr in sorted({run.lr for run in runs if run.arm == arm}):
            group = [run.summary["tuned"]["headline"][metric] for run in runs if (run.arm, run.lr) == (arm, lr)]
            if all(measure["value"] is not None for measure in group):
                found.setdefault(arm, {})[lr] = pool(group)
    return found


def markdown(runs: Sequence[Run]) -> str:
    """Returns the table: a line for each arm and learning rate, the base above them."""
    tables = {metric: estimates(runs, metric) for metric in METRICS}
    num_seeds = {(run.arm, run.lr): sum((r.arm, r.lr) == (run.arm, run.lr) for r in runs) for run in runs}
    base = runs[0].summary["base"]["headline"]
    header = ["arm", "learning rate", "seeds", *METRICS.values(), "safety tax, points"]
    lines = [" | ".join(header), " | ".join(["---", *["---:"] * (len(header) - 1)])]
    lines.append(
        " | ".join(
            [
                "base",
                "–",
                "–",
                *(_cell(pool([base[metric]]) if base[metric]["value"] is not None else None) for metric in METRICS),
                "–",
            ]
        )
    )
    for arm, lr in num_seeds:
        group = [run.summary["tax"]["points"] for run in runs if (run.arm, run.lr) == (arm, lr)]
        tax = (
            f"{statistics.fmean(measure['value'] for measure in group):.1f}"
            if all(measure["value"] is not None for measure in group)
            else "–"
        )
        cells = [_cell(tables[metric].get(arm, {}).get(lr)) for metric in METRICS]
        lines.append(" | ".join([arm, short(lr), str(num_seeds[arm, lr]), *cells, tax]))
    rows = "\n".join(f"| {line} |" for line in lines)
    return (
        "# Frontier\n\n"
        "Mean over seeds in per cent, 95 % interval over seeds and problems. Written by "
        "`dgr_lightning/experiments/frontier.py`, whose head says how the intervals are made.\n\n"
        f"{rows}\n\n![reasoning and refusal against the learning rate](frontier.svg)\n"
    )


def drawing(runs: Sequence[Run]) -> str:
    """Returns the picture: each rate against the learning rate, and reasoning against over-refusal."""
    tables = {metric: estimates(runs, metric) for metric in METRICS}
    lrs = sorted({run.lr for run in runs})
    edge = 1.15
    rate_axis = Axis("learning rate", lrs[0] / edge, lrs[-1] * edge, _spaced(lrs), log=True)
    base = runs[0].summary["base"]["headline"]
    charts = []
    for metric, title in METRICS.items():
        lines = [_arm(arm, [(lr, estimate) for lr, estimate in tables[metric].get(arm, {}).items()]) for arm in ARMS]
        if base[metric]["value"] is not None:
            low, value, high = (base[metric][key] for key in ("low", "value", "high"))
            ends = [Point(x, value, low, high) for x in (rate_axis.low, rate_axis.high)]
            lines.insert(0, Series("base", ends, 5, look="thin dashed", band=True))
        charts.append(svg.chart(title, [line for line in lines if line.points], rate_axis, svg.rate_axis(""), legend=False))
    reasoning, over_refusal = tables["reasoning_accuracy"], tables["over_refusal_rate"]
    lines = []
    for arm in ARMS:
        both = [lr for lr in lrs if lr in reasoning.get(arm, {}) and lr in over_refusal.get(arm, {})]
        points = [
            Point(over_refusal[arm][lr].value, reasoning[arm][lr].value, label=short(lr) if arm == "vanilla" else "")
            for lr in both
        ]
        lines.append(Series(arm, points, _color(arm), _marker(arm), "thin"))
    lines = [line for line in lines if line.points]
    if lines:
        title = "reasoning accuracy against over-refusal"
        charts.append(svg.chart(title, lines, svg.rate_axis("over-refusal of benign"), svg.rate_axis(""), legend=False))
    legend = [Series("base", (), 5, look="thin dashed"), *(Series(arm, (), _color(arm), _marker(arm)) for arm in ARMS)]
    num_seeds = len({run.seed for run in runs})
    title = f"Vanilla SFT and DGR over learning rates, {num_seeds} seeds, 95 % intervals"
    return svg.picture(title, charts, legend, columns=2)


def _arm(arm: str, points: Sequence[tuple[float, Estimate]]) -> Series:
    drawn = [Point(lr, estimate.value, estimate.low, estimate.high) for lr, estimate in points]
    return Series(arm, drawn, _color(arm), _marker(arm))


def _color(arm: str) -> int:
    return {"dgr": 0, "vanilla": 1}[arm]


def _marker(arm: str) -> str:
    return {"dgr": "circle", "vanilla": "square"}[arm]


def _spaced(lrs: Sequence[float]) -> list[float]:
    """Returns the learning rates that have room for their number beside the one before."""
    spaced = [lrs[0]]
    for lr in lrs[1:]:
        if math.log(lr / spaced[-1]) >= math.log(lrs[-1] / lrs[0]) / 9:
            spaced.append(lr)
    return spaced


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
