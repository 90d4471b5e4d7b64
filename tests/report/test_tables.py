"""Tables in narrow terminals: what does not fit becomes a second table, names fold, figures stay whole."""

import re
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from dgr_lightning.report import terminal
from dgr_lightning.report.plan import SetPlan, show_plan
from dgr_lightning.report.tables import FigureTable, FittedMarkdown, WrappedText
from tests.helpers.finished_run import NOTE, REFINEMENT, TAX, estimates, make_summary
from tests.helpers.runs import ROOT

FIGURES = ["98.0 (89.5–99.6)", "100.0 (92.9–100.0)", "+97.5 (+83.9, +99.6)"]
LONG = "jailbreakbench_benign_of_others"


def printed(renderable, width: int) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(renderable)
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    return text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_figure_is_broken_and_none_is_lost(width):
    text = printed(FigureTable(["task", "base", "tuned", "difference"], [[LONG, *FIGURES], ["gsm8k", *FIGURES]]), width)
    assert all(text.count(figure) == 2 for figure in FIGURES)
    assert "…" not in text


def test_what_does_not_fit_is_a_second_table_with_the_names_again():
    table = FigureTable(["task", "base", "tuned", "difference"], [["gsm8k", *FIGURES]], title="Results")
    assert printed(table, 80).count("gsm8k") == 1
    narrow = printed(table, 50)
    assert narrow.count("gsm8k") == 2 and narrow.count("Results") == 1
    assert re.search(r"task +base +tuned *\n", narrow) and re.search(r"task +difference *\n", narrow)


def test_names_fold_before_a_column_moves_below():
    assert printed(FigureTable(["", "base", "tuned", "difference"], [[LONG, *FIGURES]]), 80).count("base") == 1


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_text_wraps_between_figures(width):
    facts = "trace 8.500 → 0.150, all prompts −0.001 (−0.004 to 0.002), peak memory 512 MiB, 1,234 tokens/s, 50.0 (4.3–99.9)"
    text = printed(WrappedText(Text(facts, "dim")), width)
    for figure in ("8.500 → 0.150", "−0.001 (−0.004 to 0.002)", "512 MiB", "1,234 tokens/s", "50.0 (4.3–99.9)"):
        assert figure in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_end_of_a_run_breaks_no_figure(width, monkeypatch):
    tasks = estimates(0.975, 0.025) | {LONG: {"over_refusal_rate": estimates(0.1, 0.5)["gsm8k"]["accuracy"]}}
    summary = make_summary(base=tasks, tuned=tasks, tax=TAX, refinement=REFINEMENT)
    console = Console(file=StringIO(), width=width, color_system=None)
    monkeypatch.setattr(terminal, "console", console)
    terminal.show_summary(summary, NOTE)
    text = console.file.getvalue()
    for line in text.splitlines():
        assert len(line) <= width and line.count("(") == line.count(")") and not line.rstrip().endswith("→"), line
    assert len(re.findall(r"\d \([\d.]+–[\d.]+\)", text)) == 2 * 7


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_plan_of_many_labels_keeps_its_counts_whole(width, monkeypatch):
    counts = {(LONG, label): 123_456 for label in ("harmful", "benign", "safe_completion", "retention")}
    tokens = {part: [12, 12_345, 1_234_567] for part in ("prompt", "trace", "answer", "whole")}
    plan = SetPlan("a set", counts, {"several_traces": 7}, tokens, 8192, (1, 5), 0, 0, {}, audit={"it parses": [f"{LONG}-1"]})
    console = Console(file=StringIO(), width=width, color_system=None)
    monkeypatch.setattr("dgr_lightning.report.plan.console", console)
    show_plan(plan)
    text = console.file.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert text.count("123,456") == 4 and "493,824" in text and text.count("1,246,924") == 4
    assert "✗ it parses" in text and f"{LONG}-1" in text
    assert "1,112,345" in text  # 95 % of the way, and never beyond the longest


@pytest.mark.parametrize("width", [80, 120, 160])
def test_tables_of_a_study_break_no_figure(width):
    markdown = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    text = printed(FittedMarkdown(markdown), width)
    cells = [cell.strip() for line in markdown.splitlines() if line.startswith("|") for cell in line.split("|")]
    for cell in cells:
        if re.search(r"\d (\(|→|to)", cell):
            assert cell in text, cell


def test_a_table_whose_first_column_repeats_is_told_apart_by_the_second():
    rows = "".join(
        f"| {arm} | {lr} | 98.0 (89.5–99.6) | 100.0 (92.9–100.0) |\n" for arm in ("a", "b") for lr in ("3e-4", "5e-4")
    )
    text = printed(FittedMarkdown(f"| arm | rate | reasoning | refusal |\n| --- | --- | --- | --- |\n{rows}"), 40)
    assert text.count("5e-4") == 4 and text.count("98.0 (89.5–99.6)") == text.count("100.0 (92.9–100.0)") == 4
