from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning.files import read_json, write_json
from dgr_lightning.report import terminal
from tests.helpers.finished_run import NOTE, REFINEMENT, UNDEFINED, UNMEASURED, estimates, make_summary, write_run


def _printed(summary: dict, monkeypatch: pytest.MonkeyPatch, width: int = 110) -> str:
    console = Console(width=width, record=True, file=StringIO())
    monkeypatch.setattr(terminal, "console", console)
    terminal.show_summary(summary, NOTE)
    return console.export_text()


def test_terminal_shows_every_figure_of_the_run(monkeypatch):
    text = _printed(make_summary(), monkeypatch)
    for figure in (
        "98.0 (89.5–99.6)",  # base, with Wilson's interval
        "78.0 (",
        "−20.0 (−28.0, −12.0)",
        "+20.0 (+12.0, +28.0) points",
        "+20.4",
        "proxy",
        "2.0 → 2.0",
        "37 of 40",
        "3 of 40: meta thinking 2, unfinished 1",
        "8.500 → 0.150",
        "trace 8.500 → 0.150, answer 8.500 → 0.150, whole target",
        "trace 4,915 → 1.162",
        "source and rewrite 0.833 (0.454 to 1.000)",
        "all prompts −0.001 (−0.004 to 0.002), reasoning prompts",
        "900 → 1,100",
        "no answer 3",
        "refine 1.5, train 2.2",
    ):
        assert figure in text, figure


def test_terminal_shows_partial_summaries_and_undefined_measures(monkeypatch):
    assert "tuned" not in _printed(make_summary(base=estimates(1.0, 0.0)), monkeypatch)
    text = _printed(make_summary(refinement=REFINEMENT | {"nll_after": None}, shift=UNMEASURED), monkeypatch)
    assert "37 of 40" in text and "trace 8.500 → –" in text and "None" not in text and "similarity" not in text
    undefined = {"gsm8k": {"accuracy": UNDEFINED}}
    text = _printed(
        make_summary(base=undefined, tuned=undefined, tax={"points": UNDEFINED, "relative_percent": UNDEFINED}), monkeypatch
    )
    assert "nan" not in text.lower() and "None" not in text


def test_names_from_outside_are_not_read_as_markup(monkeypatch):
    text = _printed(make_summary(refinement=REFINEMENT | {"fallback": {"[red]x[/nonsense]": 1}}), monkeypatch)
    assert "[red]x[/nonsense]" in text


def test_a_warning_is_the_last_thing_shown_and_is_red(monkeypatch):
    recorded = Console(width=60, record=True, file=StringIO(), force_terminal=True)
    monkeypatch.setattr("dgr_lightning.console.console", recorded)
    terminal.show_summary(make_summary(refinement=REFINEMENT, warnings=["5 of 8 [rewrites] fell back"]), NOTE)
    assert "5 of 8 [rewrites] fell back" in recorded.export_text(clear=False)
    assert "color: #800000" in recorded.export_html()


def test_report_is_written_before_the_summary_that_means_done(tmp_path, monkeypatch):
    run_dir = write_run(tmp_path)
    order = []
    monkeypatch.setattr(terminal, "write_html", lambda folder, summary, note: order.append((folder / "summary.json").exists()))
    monkeypatch.setattr(terminal, "write_json", lambda path, value: (order.append(path.name), write_json(path, value)))
    terminal.write(run_dir, make_summary(), NOTE)
    assert order == [False, "summary.json"]
    assert read_json(run_dir / "summary.json") == make_summary()
