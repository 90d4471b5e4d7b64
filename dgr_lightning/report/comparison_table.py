"""A comparison in the terminal: the models, their rates side by side, the paired differences, what was left out."""

from __future__ import annotations

from rich.text import Text

from dgr_lightning.console import console, warn
from dgr_lightning.report.comparison import HEADLINE, Comparison
from dgr_lightning.report.comparison_page import common_tasks, fact_names, mark, p_value, rate_rows, significance
from dgr_lightning.report.estimates import percent, signed
from dgr_lightning.report.tables import FigureTable, WrappedText, facts_table

_TONES = {"better": "green", "worse": "red", "same": "dim"}


def show(found: Comparison) -> None:
    """Prints the tables of a comparison and its warnings."""
    console.print(_models(found))
    console.print()
    console.print(_rates(found))
    console.print()
    if common := common_tasks(found):
        console.print(WrappedText(Text(common, style="dim")))
    for note in found.notes:
        console.print(WrappedText(Text(note, style="dim")))
    console.print()
    console.print(_differences(found))
    console.print()
    console.print(WrappedText(Text(significance(found), style="dim")))
    if found.skipped:
        console.print()
        left_out = [(f"{one.task}, {one.a} and {one.b}", one.why) for one in found.skipped]
        console.print(facts_table(left_out, title="Not compared"))
    for warning in found.warnings:
        warn(warning)


def _models(found: Comparison) -> FigureTable:
    names = fact_names(found)
    taxes = any(model.tax is not None for model in found.models)
    headings = ["", "model", *names, *(["safety tax, points"] if taxes else [])]
    rows: list[list[str | Text]] = []
    for model in found.models:
        own: list[str | Text] = [model.letter, model.name, *(model.facts.get(name, "–") for name in names)]
        rows.append([*own, *([signed(model.tax, 1)] if taxes else [])])
    return FigureTable(headings, rows, title="Models", num_names=2)


def _rates(found: Comparison) -> FigureTable:
    rows: list[list[str | Text]] = []
    for row in rate_rows(found):
        look = "bold" if row.is_headline else "dim"
        title = row.title if row.is_headline else f"  {row.title}"
        rows.append([Text(title, look), *(Text(percent(estimate), look) for estimate in row.estimates)])
    return FigureTable(["", *(model.letter for model in found.models)], rows, title="Rates, per cent (95 % interval)")


def _differences(found: Comparison) -> FigureTable:
    has_p = any(one.adjusted is not None for one in found.differences)
    several = len(found.pairs()) > 1
    headings = [*(["pair"] if several else []), "", "difference", *(["p, adjusted"] if has_p else []), "changed", "problems"]
    rows: list[list[str | Text]] = []
    for one in found.differences:
        look = "bold" if one.task == HEADLINE else "dim"
        title = one.title if one.task == HEADLINE else f"  {one.title}"
        color = _TONES[one.tone]
        change = Text(mark(signed(one.difference), one.is_significant), f"bold {color}" if one.task == HEADLINE else color)
        cells: list[str | Text] = [Text(f"{one.a} → {one.b}", look)] if several else []
        cells += [Text(title, look), change, *([p_value(one.adjusted)] if has_p else [])]
        rows.append([*cells, f"+{one.changed[0]} −{one.changed[1]}", f"{one.difference.n:,}"])
    title = "Differences, points (95 % interval)"
    if not several:
        (a, b), _ = next(iter(found.pairs().items()))
        title = f"{b} minus {a}, points (95 % interval)"
    return FigureTable(headings, rows, title=title, num_names=2 if several else 1)
