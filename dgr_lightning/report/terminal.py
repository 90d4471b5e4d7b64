"""The end of a run in the terminal: writes `report.html`, then `summary.json`, and prints the tables.

Everything is read from the run directory, so a finished run is shown again without its models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from dgr_lightning.console import console, warn
from dgr_lightning.files import read_json, write_json
from dgr_lightning.report.estimates import estimate_of, percent, signed
from dgr_lightning.report.lines import HEALTH_TITLES, health_lines, result_lines, run_facts
from dgr_lightning.report.page import write_html
from dgr_lightning.report.summary import SUMMARY, Summary
from dgr_lightning.tasks.metrics import HEALTH

_TONES = {"better": "green", "worse": "red", "same": "dim"}


def write(run_dir: Path, summary: Summary, judge_note: str) -> None:
    """Writes the page, then the summary, whose presence means that the run is done, and prints the result."""
    write_html(run_dir, summary, judge_note)
    write_json(run_dir / SUMMARY, summary)
    show(run_dir, judge_note)


def show(run_dir: Path, judge_note: str) -> None:
    """Prints the result of a finished run and the path of its report."""
    show_summary(read_json(run_dir / SUMMARY), judge_note)
    console.print(Text.assemble(("report  ", "bold"), str(run_dir / "report.html")))


def show_summary(summary: Summary, judge_note: str) -> None:
    """Prints the tables of a summary: results, tax, health of the outputs, the facts of the run, and its warnings.

    Args:
        summary: of a finished run.
        judge_note: the judge's sentence on what kind of measure its rates are.
    """
    if any(result_lines(summary)):
        console.print(_results_table(summary))
        if "tax" in summary:
            console.print(_tax_line(summary["tax"]))
        console.print(Text(judge_note, style="dim"))
        console.print(_health_table(summary))
    facts = _facts_table(summary)
    if facts.row_count:
        console.print(facts)
    for warning in summary.get("warnings", []):
        warn(warning)


def _results_table(summary: Summary) -> Table:
    both = "tuned" in summary
    table = Table(
        title="Results, per cent (95 % interval)", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("")
    table.add_column("base" if both else "model", justify="right")
    if both:
        table.add_column("tuned", justify="right")
        table.add_column("difference", justify="right")
    for line in result_lines(summary):
        look = "bold" if line.is_headline else "dim"
        cells = [Text(line.title if line.is_headline else f"  {line.title}", style=look), Text(percent(line.base), style=look)]
        if both:
            color = _TONES[line.tone]
            cells.append(Text(percent(line.tuned), style=look))
            cells.append(Text(signed(line.difference), style=f"bold {color}" if line.is_headline else color))
        table.add_row(*cells)
    return table


def _health_table(summary: Summary) -> Table:
    arrow = ", base → tuned" if "tuned" in summary else ""
    table = Table(title=f"Outputs, per cent{arrow}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for metric in HEALTH:
        table.add_column(HEALTH_TITLES[metric], justify="right")
    for task, cells in health_lines(summary):
        table.add_row(Text(task), *(Text(cell) for cell in cells))
    return table


def _tax_line(tax: Mapping[str, Any]) -> Text:
    points, relative = estimate_of(tax["points"]), estimate_of(tax["relative_percent"])
    return Text.assemble(
        ("safety tax  ", "bold"),
        f"{signed(points, 1)} points of reasoning accuracy, {signed(relative, 1)} % of the base's",
    )


def _facts_table(summary: Summary) -> Table:
    table = Table(title="The run", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("")
    for name, text in run_facts(summary):
        table.add_row(Text(name), Text(text))
    return table
