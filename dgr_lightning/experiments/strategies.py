"""Every refinement strategy and control arm, side by side: what each makes of the set, and what SFT on that does.

    python -m dgr_lightning.experiments.strategies --seeds 1,2,3 --name strategies

runs `python train.py -m name=strategies refine=… seed=…` on the miniature, all else at its defaults, and writes
docs/strategies.md. A point that is done is not run again; `--draw` only reads what is there. What follows `--` are more
overrides of every point. The two halves of the length-matched comparison take all rows of the source, since only some of them
find a partner.
Intervals are those of `dgr_lightning/experiments/frontier.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.example import ExampleFile
from dgr_lightning.experiments.frontier import METRICS, ROOT, pool
from dgr_lightning.files import write_text

SWEEPS = (
    ("vanilla,filters-only,dgr,dgr-best-of-4,dgr-trace-only,dgr-answer-only,sdft,thinksafe", ()),
    ("length-matched", ("refine.arm=originals,rewrites", "data.limit=null")),
)
ARMS = (*SWEEPS[0][0].split(","), "length-matched-originals", "length-matched-rewrites")

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def main() -> int:
    """Runs the sweeps, then writes the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="1,2,3", help="seeds, with commas")
    parser.add_argument("--name", default="strategies", help="the runs lie in runs/<name>")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where strategies.md goes")
    parser.add_argument("--draw", action="store_true", help="run nothing: read the points that are done")
    parser.add_argument("overrides", nargs="*", help="after --: overrides of every point, such as data=micro-r1act")
    args = parser.parse_args()

    failed = False
    for arms, more in SWEEPS if not args.draw else ():
        grid = [f"refine={arms}", f"seed={args.seeds}", *more]
        command = [sys.executable, "train.py", "-m", f"name={args.name}", *grid, *args.overrides]
        print(" ".join(command), flush=True)
        failed |= subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    runs = read_runs(ROOT / "runs" / args.name, [int(seed) for seed in args.seeds.split(",")])
    missing = [arm for arm in ARMS if arm not in runs]
    if missing:
        print(f"not there: {', '.join(missing)}", file=sys.stderr)
    if runs:
        text = markdown(runs)
        print(text)
        write_text(args.out / "strategies.md", text)
    return 1 if failed or missing else 0


def read_runs(folder: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Returns arm → summaries of its finished runs, the last one of each seed."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted(folder.glob("*/summary.json"), key=lambda path: path.stat().st_mtime):
        config = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
        if config["refine"]["name"] in ARMS and config["seed"] in seeds:
            summary = json.loads(path.read_text(encoding="utf-8"))
            summary["date"] = date.fromtimestamp(path.stat().st_mtime).isoformat()
            summary["trained_on"] = len(ExampleFile(path.parent / "refined.jsonl"))
            found[config["refine"]["name"], config["seed"]] = summary
    return {arm: summaries for arm in ARMS if (summaries := [found[arm, seed] for seed in seeds if (arm, seed) in found])}


def markdown(runs: Runs) -> str:
    """Returns the table."""
    header = ["arm", "seeds", "trained on", "fallback", "tokens an example", "NLL, nats a token", *METRICS.values()]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    first = next(iter(runs.values()))[0]
    base = first["base"]["headline"]
    lines.append(["base", *["–"] * 5, *(_cell([base[metric]]) for metric in METRICS)])
    for arm, summaries in runs.items():
        parts = [summary["refinement"] for summary in summaries]
        kept = [summary["trained_on"] for summary in summaries]
        before = statistics.fmean(part["tokens_before"] / part["examples"] for part in parts)
        after = statistics.fmean(part["tokens_after"] / count for part, count in zip(parts, kept, strict=True))
        nll = [statistics.fmean(part[key] for part in parts) for key in ("nll_before", "nll_after")]
        rates = [_cell([summary["tuned"]["headline"][metric] for summary in summaries]) for metric in METRICS]
        cells = [arm, str(len(summaries)), f"{statistics.fmean(kept):.0f}", _fallback(parts)]
        lines.append([*cells, f"{before:.1f} → {after:.1f}", f"{nll[0]:.2f} → {nll[1]:.2f}", *rates])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        "# Strategies and control arms\n\n"
        "On the miniature: mechanism, not magnitude. NLL is that of the set under the base, tokens are target tokens. "
        "Rates in per cent, mean over seeds, 95 % interval over seeds and "
        "problems; the other figures are means over seeds. `python -m dgr_lightning.experiments.strategies`, "
        f"{os.cpu_count()} CPU cores, torch {first['versions']['torch']}, {first['date']}.\n\n"
        f"{table}\n"
    )


def _fallback(parts: Sequence[Mapping[str, Any]]) -> str:
    reasons = dict.fromkeys(reason for part in parts for reason in part["fallback"])
    counts = {reason: statistics.fmean(part["fallback"].get(reason, 0) for part in parts) for reason in reasons}
    return ", ".join(f"{reason} {count:.0f}" for reason, count in counts.items()) or "0"


def _cell(measures: Sequence[Mapping[str, Any]]) -> str:
    if any(measure["value"] is None for measure in measures):
        return "–"
    estimate = pool(measures)
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


if __name__ == "__main__":
    sys.exit(main())
