"""The page of a comparison: one file that loads nothing, in which other people's text is text."""

import re
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dgr_lightning.experiments.comparison import compare
from dgr_lightning.files import write_json
from dgr_lightning.report import comparison_table
from dgr_lightning.report.comparison import Comparison
from dgr_lightning.report.comparison_page import p_value
from dgr_lightning.report.forest import Mark, Row, difference_axis, forest, stand_alone
from dgr_lightning.statistics.intervals import Estimate
from tests.helpers.compared_runs import HALF, write_run, write_training
from tests.helpers.finished_run import ATTACK

RIGHT, WRONG = [True] * 40, [False] * 40


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[Comparison, Path]:
    place = tmp_path_factory.mktemp("compared")
    first = write_training(place / "vanilla", {"gsm8k": HALF}, {"gsm8k": HALF, "xstest": RIGHT}, refine__name=ATTACK)
    second = write_run(place / "other", {"gsm8k": RIGHT, "xstest": RIGHT, "strongreject": WRONG}, model__name="<b>bold</b>")
    return compare([str(first), str(second)], place / "out"), place / "out"


def test_the_page_loads_nothing_and_runs_nothing(compared):
    page = (compared[1] / "comparison.html").read_text()
    assert "default-src 'none'" in page and "<script" not in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,", "outputs.html"]
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_names_are_text_and_outputs_are_not_in_it(compared):
    page = (compared[1] / "comparison.html").read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "{{ 7 * 7 }}" in page


def test_the_page_shows_rates_differences_and_what_was_left_out(compared):
    page = (compared[1] / "comparison.html").read_text()
    assert "+50.0*" in page and "safety tax" in page and "&lt; 0.001" in page
    assert "strongreject (not measured: A)" in page
    assert "mean tokens" in page and "Refusals are found by phrases and rules" in page


def test_every_figure_is_an_svg_file_that_stands_alone(compared):
    files = sorted((compared[1] / "figures").iterdir())
    assert [file.name for file in files] == ["accuracy.svg", "difference-A-B.svg", "over_refusal_rate.svg", "refusal_rate.svg"]
    for file in files:
        root = ElementTree.fromstring(file.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.find("{*}style") is not None


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_figure_is_broken_in_the_terminal(compared, width, monkeypatch):
    console = Console(width=width, record=True, file=StringIO())
    monkeypatch.setattr(comparison_table, "console", console)
    monkeypatch.setattr(comparison_table, "warn", lambda text: None)
    comparison_table.show(compared[0])
    shown = console.export_text()
    assert "+50.0* (" in shown and all(len(line) <= width for line in shown.splitlines())


def test_a_forest_has_a_mark_an_interval_and_a_name_for_every_row():
    rows = [Row("first", [Mark(Estimate(0.1, 0.05, 0.2, 9), "tip")]), Row("a name that is too long", [], True)]
    rows += [Row("undefined", [Mark(Estimate(None, None, None, 0), "none")])]
    drawn = forest("A & B", rows, difference_axis([Estimate(0.1, 0.05, 0.2, 9)], "B minus A"), zero=True)
    root = ElementTree.fromstring(drawn)
    assert len(root.findall("g")) == 1 and len(root.findall("line[@class='zero']")) == 1
    texts = [element.text for element in root.iter("text")]
    assert "A & B" in texts and "first" in texts and "a name that is too…" in texts
    assert ElementTree.fromstring(stand_alone(drawn, ["A one", "B two"])) is not None


def test_an_interval_lies_where_the_axis_says_and_zero_in_the_middle():
    axis = difference_axis([Estimate(-0.5, -1.0, 0.1, 9)], "")
    assert axis.low == -axis.high < -1.0 and axis.position(0.0) == 0.5


def test_a_small_p_value_is_not_zero():
    assert [p_value(p) for p in (None, 0.0, 0.00099, 0.001, 0.5)] == ["–", "< 0.001", "< 0.001", "0.001", "0.500"]


def test_curves_over_token_budgets_are_shown_where_two_runs_have_them(tmp_path):
    runs = [write_run(tmp_path / name, {"gsm8k": HALF}) for name in ("a", "b")]
    for run, accuracy in zip(runs, (0.2, 0.4), strict=True):
        points = [{"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40} for value in (accuracy, accuracy + 0.1)]
        write_json(run / "evaluation" / "budget.json", {"headline": {"caps": [100, 200], "base": points, "difference": []}})
    found = compare(list(map(str, runs)), tmp_path / "out")
    assert [[(cap, one.value) for cap, one in model.budget] for model in found.models] == [
        [(100, 0.2), (200, pytest.approx(0.3))],
        [(100, 0.4), (200, 0.5)],
    ]
    assert "Reasoning accuracy under smaller budgets" in (tmp_path / "out" / "comparison.html").read_text()
    ElementTree.fromstring((tmp_path / "out" / "figures" / "budget.svg").read_text())
    (runs[1] / "evaluation" / "budget.json").unlink()
    compare(list(map(str, runs)), tmp_path / "out")
    assert "smaller budgets" not in (tmp_path / "out" / "comparison.html").read_text()
    assert not (tmp_path / "out" / "figures" / "budget.svg").exists()
