"""The headline: what safety tuning costs the miniature, without refinement and with DGR, over bases, seeds and learning rates.

    python train.py experiment=micro-headline

makes every run that is missing, and writes `headline.json`, `headline.csv` (a line a run), `frontier.md`, `frontier.svg` and
the README's table, which stands between two marks there. Stopped and started again, it goes on. Other bases,
seeds or rates, and further overrides, are another study: its findings lie beside its runs, and the README stays.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.markup import escape

from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.experiments import frontier
from dgr_lightning.experiments.frontier import ARMS
from dgr_lightning.experiments.grid import (
    RATES,
    FinishedRun,
    by_base,
    finished_runs,
    grouped,
    is_published,
    now,
    output_folder,
    override,
    sweep,
)
from dgr_lightning.experiments.safe_tax import MAX_OVER_REFUSAL, MIN_REFUSAL, SafeTax, safe_tax
from dgr_lightning.experiments.tables import (
    HEADINGS,
    INTERVALS,
    TAX_BOUNDS,
    headings,
    prediction,
    rate_cells,
    replicated_rate,
    replicated_tax,
    signed_percent,
    table,
    tax_cells,
)
from dgr_lightning.files import write_json, write_text
from dgr_lightning.number_format import UNDEFINED, minus, short
from dgr_lightning.origin import Origin, origin
from dgr_lightning.report.tables import FittedMarkdown
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.statistics.replication import Replicated, replicate

README = Path("README.md")
_BEGIN, _END = "<!-- headline -->", "<!-- /headline -->"
_NEIGHBOUR = 1.25
# A learning rate is chosen on the probe split, by the curves' last point: all of the split, and no points between the ends.
_PROBES = ("probes.every=1000000", "probes.size=100")


@dataclass(frozen=True)
class Findings:
    """The finished runs of a headline.

    Attributes:
        grid: over learning rates, in the machine's own precision.
        by_precision: those at the default learning rate, by the type of their computation.
        lrs: the fixed learning rates of the grid, without the default's neighbours.
        default: the default learning rate.
        made: where they come from.
        command: the line that makes them again.
    """

    grid: Sequence[FinishedRun]
    by_precision: Mapping[str, Sequence[FinishedRun]]
    lrs: Sequence[float]
    default: float
    made: Origin
    command: str

    @property
    def at_default(self) -> list[FinishedRun]:
        """The runs of the grid at the default learning rate."""
        return [run for run in self.grid if run.lr == self.default]

    @cached_property
    def taxes(self) -> dict[str, dict[int, list[SafeTax]]]:
        """Arm → base → seed → the tax over the fixed grid."""
        fixed = [run for run in self.grid if run.lr in self.lrs]
        return {arm: safe_taxes([run for run in fixed if run.arm == arm]) for arm in ARMS}


def run(cfg: Config, overrides: Sequence[str], command: str) -> bool:
    """Makes what is missing, writes what there is, and returns whether it is complete.

    Args:
        cfg: the composed config: `study`, `name`, and the default learning rate.
        overrides: further ones of every run.
        command: the line that makes it all again.
    """
    study, default, start = cfg.study, cfg.sft.lr, now()
    lrs = learning_rates(study.lrs, default)
    # The study's own overrides stand last and win: the rate and the types of the command line are those of the grid.
    arms, shared = override("refine", ARMS), [*_PROBES, *overrides]
    per_base = len(ARMS) * len(study.seeds)
    whole = sweep(study, cfg.name, [*shared, arms, override("sft.lr", lrs)], per_base * len(lrs))
    for precision in study.precisions:
        types = [f"trainer.precision={precision}", f"engine.precision={precision}"]
        whole &= sweep(study, cfg.name, [*shared, arms, f"sft.lr={default}", *types], per_base)
    runs = finished_runs(Path("runs", cfg.name), start)
    grid = frontier.select(_of_precision(runs, cfg.trainer.precision), lrs, study.seeds, study.bases)
    by_precision = {
        precision: frontier.select(_of_precision(runs, precision), [default], study.seeds, study.bases)
        for precision in study.precisions
    }
    gaps = frontier.missing(grid, lrs, study.seeds, study.bases)
    for precision, found in by_precision.items():
        gaps += [f"{gap}, in {precision}" for gap in frontier.missing(found, [default], study.seeds, study.bases)]
    for gap in dict.fromkeys(gaps):
        say(f"[yellow]no finished run of {gap}[/]")
    if not grid:
        return False
    complete = whole and not gaps
    folder = output_folder(cfg, overrides, complete=complete)
    text = _write(folder, Findings(grid, by_precision, study.lrs, default, origin(), command))
    if complete and is_published(study, overrides):
        _write_readme(text)
    say(f"The findings are in {escape(str(folder))}.")
    return complete


def learning_rates(grid: Sequence[float], default: float) -> list[float]:
    """Returns the grid with the default and its neighbours, which tell whether the default sits on a cliff."""
    return sorted({*grid, *_near(default)})


def _near(default: float) -> list[float]:
    """Returns the default between its neighbours, as they are written on a command line."""
    return [float(f"{lr:.4g}") for lr in (default / _NEIGHBOUR, default, default * _NEIGHBOUR)]


def _of_precision(runs: Sequence[FinishedRun], precision: str) -> list[FinishedRun]:
    wanted = {"trainer": precision, "engine": precision}
    return [run for run in runs if all(run.config[section]["precision"] == value for section, value in wanted.items())]


def _write(out: Path, findings: Findings) -> str:
    """Writes the findings into a folder and returns the README's section."""
    grid, sentence = findings.grid, findings.made.sentence(findings.command)
    elsewhere = [run for runs in findings.by_precision.values() for run in runs if run not in grid]
    write_json(out / "headline.json", report(findings))
    write_text(out / "headline.csv", points([*grid, *elsewhere]))
    write_text(out / "frontier.md", frontier.markdown(grid, sentence))
    write_text(out / "frontier.svg", frontier.drawing(grid))
    text = markdown(findings)
    console.print(FittedMarkdown(text))
    return text


def _write_readme(text: str) -> None:
    if README.exists() and _BEGIN in (readme := README.read_text(encoding="utf-8")):
        before, _, rest = readme.partition(_BEGIN)
        write_text(README, f"{before}{_BEGIN}\n{text}{_END}{rest.partition(_END)[2]}")


# --- The figures ----------------------------------------------------------------------------------------------------------


def safe_taxes(runs: Sequence[FinishedRun]) -> dict[int, list[SafeTax]]:
    """Returns base → seed → the tax of one arm over the grid."""
    return {
        base: [safe_tax(of_seed) for of_seed in grouped(of_base, lambda run: run.seed).values()]
        for base, of_base in by_base(runs).items()
    }


def over_bases(taxes: Mapping[int, Sequence[SafeTax]], name: str) -> Replicated | None:
    """Returns a figure, by its name in headline.json, over those bases in which every seed has it; None without any."""
    value = _FIGURES[name][1]
    found = [[value(tax) for tax in seeds] for seeds in taxes.values()]
    whole = [[estimate for estimate in seeds if estimate is not None] for seeds in found if None not in seeds]
    return replicate(whole, TAX_BOUNDS if name.endswith("tax") else (0.0, 1.0)) if whole else None


_FIGURES: dict[str, tuple[str, Callable[[SafeTax], Estimate | None]]] = {
    "safe_tax": ("smallest tax where safe", lambda tax: tax.safe.tax if tax.safe else None),
    "safe_refusal": ("refusal there", lambda tax: tax.safe.rate("refusal_rate") if tax.safe else None),
    "safe_over_refusal": ("over-refusal there", lambda tax: tax.safe.rate("over_refusal_rate") if tax.safe else None),
    "matched_tax": ("smallest tax where 95 % is refused", lambda tax: tax.matched.tax if tax.matched else None),
    "mean_tax": ("mean tax over the grid", lambda tax: tax.mean_tax),
    "safe_share": ("safe share of the grid", lambda tax: tax.safe_share),
}


def report(findings: Findings) -> dict[str, Any]:
    """Returns the content of headline.json."""
    grid = findings.grid
    figures = {
        arm: {name: found and found.to_json() for name in _FIGURES for found in [over_bases(of_arm, name)]}
        for arm, of_arm in findings.taxes.items()
    }
    return {
        **findings.made.to_json(),
        "command": findings.command,
        "bases": sorted({run.base for run in grid}),
        "seeds": sorted({run.seed for run in grid}),
        "learning_rate": findings.default if findings.at_default else None,
        "learning_rates": list(findings.lrs),
        "precision": grid[0].config["trainer"]["precision"],
        "arms": _arms(findings.at_default),
        "by_precision": {precision: _arms(runs) for precision, runs in findings.by_precision.items()},
        "safe": {"refusal_rate": MIN_REFUSAL, "over_refusal_rate": MAX_OVER_REFUSAL},
        "over_learning_rates": figures,
    }


def _arms(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    return {
        arm: {rate: replicated_rate(of_arm, rate).to_json() for rate in RATES} | {"tax": replicated_tax(of_arm).to_json()}
        for arm in ARMS
        if (of_arm := [run for run in runs if run.arm == arm])
    }


def points(runs: Sequence[FinishedRun]) -> str:
    """Returns the runs as CSV, a line each: evaluation split, and probe split behind `probe_`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["arm", "learning_rate", "base", "seed", "precision", *RATES, "tax", *(f"probe_{rate}" for rate in RATES)]
    writer.writerow([*header, "nll", "fallback"])
    for run in runs:
        values = [*(run.rate(rate).value for rate in RATES), run.tax.value, *(run.probe[rate] for rate in RATES)]
        refinement = run.summary["refinement"]
        row = [run.arm, f"{run.lr:g}", run.base, run.seed, run.config["trainer"]["precision"]]
        row += ["" if value is None else f"{value + 0.0:.4f}" for value in values]
        writer.writerow([*row, f"{refinement['nll_after']:.3f}", sum(refinement["fallback"].values())])
    return text.getvalue()


# --- The README's section --------------------------------------------------------------------------------------------------


def markdown(findings: Findings) -> str:
    """Returns the tables of the README: the default run, and each arm over all learning rates."""
    grid = findings.grid
    num_bases, num_seeds = len({run.base for run in grid}), len({run.seed for run in grid})
    lrs = sorted(findings.lrs)
    header = ["arm", "precision", *headings([*HEADINGS.values(), "safety tax, points"])]
    rows = [
        [arm, precision, *rate_cells(group), *tax_cells(group)]
        for arm in ARMS
        for precision, runs in findings.by_precision.items()
        if (group := [run for run in runs if run.arm == arm])
    ]
    return (
        f"{num_bases} bases (`model.seed`) × {num_seeds} training seeds. {INTERVALS} "
        f"{findings.made.sentence(findings.command)}\n\n"
        f"At the default learning rate, {short(findings.default)}:\n\n{table(header, rows)}\n\n"
        f"{_flatness(findings)}\n\n"
        f"Over {len(lrs)} learning rates from {short(lrs[0])} to {short(lrs[-1])}. *Safe* is a refusal of at least "
        f"{100 * MIN_REFUSAL:.0f} % and an over-refusal of at most {100 * MAX_OVER_REFUSAL:.0f} %; the rate is chosen on the "
        f"probe split, tax and rates there are read off the evaluation split:\n\n{_over_learning_rates(findings.taxes)}\n"
    )


def _flatness(findings: Findings) -> str:
    """Returns how far a factor 1.25 in the learning rate moves the tax of each arm; nothing where runs are missing."""
    moves = []
    for arm in ARMS:
        by_lr = [[run for run in findings.grid if run.arm == arm and run.lr == lr] for lr in _near(findings.default)]
        means = [100 * mean for runs in by_lr if runs and (mean := replicated_tax(runs).mean.value) is not None]
        if len(means) == len(by_lr):
            below, here, above = means
            moves.append(f"{arm}'s by {below - here:+.1f} and {above - here:+.1f} points")
    if not moves:
        return ""
    return minus(f"A learning rate lower and higher by a factor {_NEIGHBOUR} moves {', '.join(moves)}.")


def _over_learning_rates(taxes: Mapping[str, Mapping[int, Sequence[SafeTax]]]) -> str:
    header = ["arm", "bases safe on the probe split", "rates chosen", *(title for title, _ in _FIGURES.values())]
    rows = []
    for arm, of_arm in taxes.items():
        with_safe = sum(all(tax.safe for tax in seeds) for seeds in of_arm.values())
        cells = [_cell(over_bases(of_arm, name)) for name in _FIGURES]
        chosen = [tax.safe.lr for seeds in of_arm.values() for tax in seeds if tax.safe]
        span = " to ".join(dict.fromkeys([short(min(chosen)), short(max(chosen))])) if chosen else "none"
        rows.append([arm, f"{with_safe} of {len(of_arm)}", span, *cells])
    return table(header, rows)


def _cell(found: Replicated | None) -> str:
    if found is None:
        return "none"
    limits = prediction(found)
    return signed_percent(found.mean) + (f"; {limits}" if limits != UNDEFINED else "")
