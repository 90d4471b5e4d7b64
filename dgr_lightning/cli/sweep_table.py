"""The table that ends a sweep: what tells each point from the others, its figures, how it ended, and where it lies.

The figures are read from the summary.json of each run, wherever a launcher ran it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.text import Text

from dgr_lightning.cli.failures import DONE
from dgr_lightning.cli.sweep_points import PointOutcome
from dgr_lightning.console import console
from dgr_lightning.files import read_json

_STATUS = {"done": "green", "shown": "dim", "failed": "red"}


def show_points(outcomes: Sequence[PointOutcome]) -> None:
    """Prints the table of the points that have ended, and under it the run directory of each."""
    from dgr_lightning.report.tables import FigureTable

    if not outcomes:
        return
    keys = _differing([outcome.values for outcome in outcomes])
    figures = [dict(_figures(_summary(outcome))) for outcome in outcomes]
    names = list(dict.fromkeys(name for of_point in figures for name in of_point))

    def table(*, intervals: bool) -> FigureTable:
        rows: list[list[str | Text]] = []
        for outcome, of_point in zip(outcomes, figures, strict=True):
            cells = [of_point.get(name, "") for name in names]
            ended = Text(outcome.status, _STATUS[outcome.status])
            shown = cells if intervals else [cell.partition(" (")[0] for cell in cells]
            rows.append([str(outcome.number + 1), *(outcome.values.get(key, "") for key in keys), *shown, ended])
        title = (
            f"The points, {'95 % intervals in brackets' if intervals else 'intervals in their summary.json'}" if names else ""
        )
        return FigureTable(["point", *keys, *names, "status"], rows, title=title, num_names=1 + len(keys))

    whole = table(intervals=True)
    console.print()
    console.print(whole if whole.fits(console.width) else table(intervals=False))
    console.print()
    for outcome in outcomes:
        if outcome.directory:
            console.print(f"  point {outcome.number + 1}  {escape(outcome.directory)}", soft_wrap=True)


def _differing(points: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns the keys that have not the same value in every point, in the order of the command line; of a lone point all."""
    keys = dict.fromkeys(key for values in points for key in values)
    return [key for key in keys if len(points) == 1 or len({values.get(key) for values in points}) > 1]


def _summary(outcome: PointOutcome) -> dict[str, Any]:
    """Returns the summary of a point's run; empty where it has none, or lies where this process cannot read it."""
    from dgr_lightning.report.summary import SUMMARY

    path = Path(outcome.directory) / SUMMARY
    if outcome.code != DONE or not outcome.directory or not path.is_file():
        return {}
    summary: dict[str, Any] = read_json(path)
    return summary


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields name and text of the figures of a run: its headlines and its tax, or what a refinement did."""
    from dgr_lightning.number_format import nats
    from dgr_lightning.report.estimates import estimate_of, percent, signed
    from dgr_lightning.report.lines import TITLES
    from dgr_lightning.tasks.metrics import KINDS

    if measured := summary.get("tuned") or summary.get("base"):
        for kind, names in KINDS.items():
            yield TITLES[kind], percent(estimate_of(measured["headline"][names.headline]))
        if "tax" in summary:
            yield "tax", signed(estimate_of(summary["tax"]["points"]), 1)
    elif refinement := summary.get("refinement"):
        yield "refined", f"{refinement['refined']} of {refinement['examples']}"
        yield "NLL", f"{nats(refinement['nll_before'])} → {nats(refinement['nll_after'])}"
