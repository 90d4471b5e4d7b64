"""The end of a run in the terminal: writes `report.html`, then `summary.json`, and prints the tables.

Everything is read from the run directory, so a finished run is shown again without its models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from dgr_lightning.console import console, warn
from dgr_lightning.files import read_json, write_json
from dgr_lightning.report.estimates import estimate_of, percent, signed
from dgr_lightning.report.lines import (
    HEALTH_TITLES,
    agreement_lines,
    beside_table,
    health_lines,
    judge_lines,
    result_lines,
    run_facts,
)
from dgr_lightning.report.page import write_html
from dgr_lightning.report.summary import SUMMARY, Summary
from dgr_lightning.report.tables import FigureTable, WrappedText, facts_table
from dgr_lightning.report.viewer import OUTPUTS, write_outputs
from dgr_lightning.tasks.metrics import HEALTH

_TONES = {"better": "green", "worse": "red", "same": "dim"}


def write(run_dir: Path, summary: Summary, judge_note: str) -> None:
    """Writes the pages, then the summary, whose presence means that the run is done, and prints the result."""
    write_outputs(run_dir, summary)
    write_html(run_dir, summary, judge_note)
    write_json(run_dir / SUMMARY, summary)
    show(run_dir, judge_note)


def show(run_dir: Path, judge_note: str) -> None:
    """Prints the result of a finished run and the path of its report."""
    show_summary(read_json(run_dir / SUMMARY, "schema", "wall_seconds"), judge_note)
    console.print(Text.assemble(("report  ", "bold"), str(run_dir / "report.html")), soft_wrap=True)
    if (run_dir / OUTPUTS).exists():
        console.print(Text.assemble(("outputs ", "bold"), str(run_dir / OUTPUTS)), soft_wrap=True)


def show_summary(summary: Summary, judge_note: str) -> None:
    """Prints the tables of a summary: results, tax, health of the outputs, the facts of the run, and its warnings.

    Args:
        summary: of a finished run.
        judge_note: what kind of measures the judges' rates are, a line a judge.
    """
    if any(result_lines(summary)):
        console.print(_results_table(summary))
        console.print()
        if "tax" in summary:
            console.print(facts_table([("safety tax", _tax(summary["tax"]))]))
        for note in judge_note.splitlines():
            console.print(WrappedText(Text(note, style="dim")))
        console.print()
        for table in _judge_tables(summary):
            console.print(table)
            console.print()
        console.print(_health_table(summary))
        console.print()
        titles, rows = beside_table(summary)
        if titles:
            console.print(
                FigureTable(["", *titles], [[task, *cells] for task, cells in rows], title=f"Beside them{_arrow(summary)}")
            )
            console.print()
    if facts := list(run_facts(summary)):
        console.print(facts_table(facts, title="The run"))
    for warning in summary.get("warnings", []):
        warn(warning)


def _results_table(summary: Summary) -> FigureTable:
    both = "tuned" in summary
    headings = ["", "base", "tuned", "difference"] if both else ["", "model"]
    rows = []
    lines = list(result_lines(summary))
    # A single judge is named by the note below the table.
    several = len({line.judge for line in lines if line.judge}) > 1 or any(judge_lines(summary))
    for line in lines:
        look = "bold" if line.is_headline else "dim"
        title = Text(line.title if line.is_headline else f"  {line.title}", style=look)
        if line.is_headline and line.judge and several:
            title.append(f" by {line.judge}", style="not bold dim")
        cells = [title, Text(percent(line.base), style=look)]
        if both:
            color = _TONES[line.tone]
            cells.append(Text(percent(line.tuned), style=look))
            cells.append(Text(signed(line.difference), style=f"bold {color}" if line.is_headline else color))
        rows.append(cells)
    return FigureTable(headings, rows, title="Results, per cent (95 % interval)")


def _judge_tables(summary: Summary) -> Iterator[FigureTable]:
    """Yields what further judges say, and how far judges agree; nothing where a single one was asked."""
    both = "tuned" in summary
    lines = [
        [f"{line.judge}: {line.task}, {line.title}", percent(line.base), *([percent(line.tuned)] if both else [])]
        for line in judge_lines(summary)
    ]
    if lines:
        yield FigureTable(["", "base", "tuned"] if both else ["", "model"], lines, title="Judges, per cent (95 % interval)")
    if pairs := [[title, *cells] for title, cells in agreement_lines(summary)]:
        yield FigureTable(["", "of", "texts", "agreement, %", "kappa"], pairs, title="Agreement of judges (95 % interval)")


def _health_table(summary: Summary) -> FigureTable:
    rows = [[task, *cells] for task, cells in health_lines(summary)]
    return FigureTable(["", *(HEALTH_TITLES[metric] for metric in HEALTH)], rows, title=f"Outputs, per cent{_arrow(summary)}")


def _arrow(summary: Summary) -> str:
    return ", base → tuned" if "tuned" in summary else ""


def _tax(tax: Mapping[str, Any]) -> str:
    points, relative = estimate_of(tax["points"]), estimate_of(tax["relative_percent"])
    return f"{signed(points, 1)} points of reasoning accuracy, {signed(relative, 1)} % of the base's"
