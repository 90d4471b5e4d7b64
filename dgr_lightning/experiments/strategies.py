"""Every refinement strategy and control arm side by side: how each changes the set, and what SFT on that set does.

    python train.py experiment=micro-strategies

makes every run that is missing, all else at its defaults, and writes strategies.md. The length-matched comparison is not among
the arms: its two halves need originals and rewrites of equal length, and micro-directrefusal has no such pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.example import ExampleFile
from dgr_lightning.experiments.grid import FinishedRun, finished_runs, now, output_folder, override, sweep
from dgr_lightning.experiments.tables import HEADINGS, INTERVALS, headings, rate_cells, table
from dgr_lightning.files import write_text
from dgr_lightning.installation import CONF
from dgr_lightning.number_format import UNDEFINED
from dgr_lightning.origin import Origin, origin
from dgr_lightning.report.tables import FittedMarkdown

_PAIRED = "length-matched"


def run(cfg: Config, overrides: Sequence[str], command: str) -> bool:
    """Makes what is missing, writes what there is, and returns whether it is complete.

    Args:
        cfg: the composed config: `study` and `name`.
        overrides: further ones of every run.
        command: the line that makes it all again.
    """
    study, start = cfg.study, now()
    whole = sweep(study, cfg.name, [*overrides, override("refine", arms())], len(arms()) * len(study.seeds))
    runs = read_runs(Path("runs", cfg.name), study.bases, study.seeds, start)
    missing = [arm for arm in arms() if len(runs.get(arm, [])) < len(study.bases) * len(study.seeds)]
    if missing:
        say(f"[yellow]runs are missing of {', '.join(missing)}[/]")
    complete = whole and not missing
    if runs:
        text = markdown(runs, origin(), command)
        console.print(FittedMarkdown(text))
        write_text(output_folder(cfg, overrides, complete=complete) / "strategies.md", text)
    return complete


def arms() -> list[str]:
    """Returns `refine.name` of every arm: each choice of `refine` but the length-matched one, unrefined first."""
    names = {path.stem for path in (CONF / "refine").glob("*.yaml")}
    return sorted(names - {_PAIRED}, key=lambda name: (name != "vanilla", name))


def read_runs(folder: Path, bases: Sequence[int], seeds: Sequence[int], since: float = 0.0) -> dict[str, list[FinishedRun]]:
    """Returns arm → its runs that were made or asked for since a time, the last one of each base and seed."""
    last = {(run.arm, run.base, run.seed): run for run in finished_runs(folder, since)}
    points = [(base, seed) for base in bases for seed in seeds]
    runs = {arm: [last[arm, *point] for point in points if (arm, *point) in last] for arm in arms()}
    return {arm: of_arm for arm, of_arm in runs.items() if of_arm}


def markdown(runs: Mapping[str, Sequence[FinishedRun]], made: Origin, command: str) -> str:
    """Returns the report: a line for each arm, the bases above them."""
    header = ["arm", "bases", "runs", "trained on", "fallback", "tokens an example", "NLL, nats a token"]
    bases = {run.base: run for of_arm in runs.values() for run in of_arm}
    rows = [["base", str(len(bases)), *[UNDEFINED] * 5, *rate_cells(list(bases.values()), "base")]]
    rows += [[arm, *_set_cells(of_arm), *rate_cells(of_arm)] for arm, of_arm in runs.items()]
    return (
        "# Strategies and control arms\n\n"
        f"On the miniature: mechanism, not magnitude. {INTERVALS} NLL is that of the set under the base, tokens are target "
        f"tokens; these and the numbers of examples are means over runs. {made.sentence(command)}\n\n"
        f"{table([*header, *headings(list(HEADINGS.values()))], rows)}\n"
    )


def _set_cells(runs: Sequence[FinishedRun]) -> list[str]:
    """Returns the cells on the refined sets: bases, runs, examples trained on, fallback, tokens per example, NLL."""
    parts = [run.summary["refinement"] for run in runs]
    trained_on = [len(ExampleFile(run.directory / "refined.jsonl")) for run in runs]
    before = statistics.fmean(part["tokens_before"] / part["examples"] for part in parts)
    after = statistics.fmean(part["tokens_after"] / number for part, number in zip(parts, trained_on, strict=True))
    nll_before, nll_after = (statistics.fmean(part[key] for part in parts) for key in ("nll_before", "nll_after"))
    return [
        str(len({run.base for run in runs})),
        str(len(runs)),
        f"{statistics.fmean(trained_on):.0f}",
        _fallback([part["fallback"] for part in parts]),
        f"{before:.1f} → {after:.1f}",
        f"{nll_before:.2f} → {nll_after:.2f}",
    ]


def _fallback(counts: Sequence[Mapping[str, int]]) -> str:
    reasons = dict.fromkeys(reason for of_run in counts for reason in of_run)
    means = {reason: statistics.fmean(of_run.get(reason, 0) for of_run in counts) for reason in reasons}
    return ", ".join(f"{reason} {mean:.0f}" for reason, mean in means.items()) or "0"
