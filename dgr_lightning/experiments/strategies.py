"""Every refinement strategy and control arm side by side: how each changes the set, and what SFT on that set does.

    python -m dgr_lightning.experiments.strategies --seeds 1,2,3 --name strategies

runs `python train.py -m name=strategies refine=… seed=…` on the miniature, all else at its defaults, and writes
docs/strategies.md. `--draw` only reads the points that are finished. Arguments after `--` are further overrides of every point.
The two halves of the length-matched comparison take all rows of the source, since only some of them find a partner.
`experiments/seed_pooling.py` explains the intervals.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from dgr_lightning.example import ExampleFile
from dgr_lightning.experiments.grid import TRAIN, FinishedRun, arguments, finished_runs, override, sweep
from dgr_lightning.experiments.tables import RATES, rate_cells, table
from dgr_lightning.files import write_text

_PAIRED = "length-matched"
_HALVES = ("originals", "rewrites")


def main() -> int:
    """Runs the sweeps, then writes the table; returns the exit code."""
    args = arguments(__doc__ or "", "strategies", "strategies.md").parse_args()
    failed = False
    if not args.draw:
        seeds = override("seed", args.seeds)
        matched = [f"refine={_PAIRED}", seeds, override("refine.arm", _HALVES), "data.limit=null"]
        for overrides in ([override("refine", _unpaired()), seeds], matched):
            failed |= not sweep(args.name, [*overrides, *args.overrides])
    runs = read_runs(Path("runs", args.name), args.seeds)
    missing = [arm for arm in arms() if arm not in runs]
    if missing:
        print(f"no finished run of {', '.join(missing)}", file=sys.stderr)
    if runs:
        text = markdown(runs)
        print(text)
        write_text(args.out / "strategies.md", text)
    return 1 if failed or missing else 0


def arms() -> list[str]:
    """Returns `refine.name` of every arm: each choice of `refine`, unrefined first, then both length-matched halves."""
    return [*_unpaired(), *(f"{_PAIRED}-{half}" for half in _HALVES)]


def _unpaired() -> list[str]:
    names = {path.stem for path in (TRAIN.parent / "conf" / "refine").glob("*.yaml")}
    return sorted(names - {_PAIRED}, key=lambda name: (name != "vanilla", name))


def read_runs(folder: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Returns arm → summaries of its finished runs, the last one of each seed, with their `date` and `trained_on` examples."""
    last = {(run.config["refine"]["name"], run.config["seed"]): run for run in finished_runs(folder)}
    runs = {arm: [_summary(last[arm, seed]) for seed in seeds if (arm, seed) in last] for arm in arms()}
    return {arm: summaries for arm, summaries in runs.items() if summaries}


def _summary(run: FinishedRun) -> dict[str, Any]:
    examples = ExampleFile(run.directory / "refined.jsonl")
    return run.summary | {"date": date.fromtimestamp(run.finished).isoformat(), "trained_on": len(examples)}


def markdown(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the report: a line for each arm, the base above them."""
    header = ["arm", "seeds", "trained on", "fallback", "tokens an example", "NLL, nats a token", *RATES.values()]
    first = next(iter(runs.values()))[0]
    rows = [["base", *["–"] * 5, *rate_cells([first], "base")]]
    rows += [[arm, *_set_cells(summaries), *rate_cells(summaries)] for arm, summaries in runs.items()]
    return (
        "# Strategies and control arms\n\n"
        "On the miniature: mechanism, not magnitude. NLL is that of the set under the base, tokens are target tokens. "
        "Rates in per cent, mean over seeds, 95 % interval over seeds and "
        "problems; the other figures are means over seeds. `python -m dgr_lightning.experiments.strategies`, "
        f"{os.cpu_count()} CPU cores, torch {first['versions']['torch']}, {first['date']}.\n\n"
        f"{table(header, rows)}\n"
    )


def _set_cells(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the cells on the refined set: seeds, examples trained on, fallback, tokens per example, NLL."""
    parts = [summary["refinement"] for summary in summaries]
    trained_on = [summary["trained_on"] for summary in summaries]
    before = statistics.fmean(part["tokens_before"] / part["examples"] for part in parts)
    after = statistics.fmean(part["tokens_after"] / number for part, number in zip(parts, trained_on, strict=True))
    nll_before, nll_after = (statistics.fmean(part[key] for part in parts) for key in ("nll_before", "nll_after"))
    return [
        str(len(summaries)),
        f"{statistics.fmean(trained_on):.0f}",
        _fallback(parts),
        f"{before:.1f} → {after:.1f}",
        f"{nll_before:.2f} → {nll_after:.2f}",
    ]


def _fallback(parts: Sequence[Mapping[str, Any]]) -> str:
    reasons = dict.fromkeys(reason for part in parts for reason in part["fallback"])
    counts = {reason: statistics.fmean(part["fallback"].get(reason, 0) for part in parts) for reason in reasons}
    return ", ".join(f"{reason} {count:.0f}" for reason, count in counts.items()) or "0"


if __name__ == "__main__":
    sys.exit(main())
