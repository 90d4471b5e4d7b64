import re
from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning import console


@pytest.fixture
def output(monkeypatch):
    """The text printed to a log file, on a clock that advances by 100 s whenever it is read."""
    file, seconds = StringIO(), iter(range(0, 10**6, 100))
    monkeypatch.setattr(console, "console", Console(file=file, width=40))
    monkeypatch.setattr(console, "monotonic", lambda: next(seconds))
    return file


def test_a_log_shows_a_bar_when_it_ends_and_every_few_minutes_until_then(output):
    with console.progress("training", total=6, before=2) as advance:
        advance()
        assert output.getvalue() == ""
        advance(2, "loss 0.5")
        (line,) = output.getvalue().splitlines()
        assert line.startswith("training: 5/6 in ") and line.endswith(" min left, loss 0.5")
        advance()
    assert output.getvalue().splitlines()[-1].startswith("training: 6/6 in ")
    assert output.getvalue().splitlines()[-1].endswith(" s, loss 0.5")


def test_a_terminal_shows_a_bar_that_moves(monkeypatch):
    file = StringIO()
    monkeypatch.setattr(console, "console", Console(file=file, width=100, force_terminal=True, color_system=None))
    with console.progress("training", total=4, before=1) as advance:
        advance(3, "loss 0.5")
    assert "4/4" in file.getvalue() and "loss 0.5" in file.getvalue()


NOTE = "probing  loss 0.1050  lr 1.1e-04  15,957 tokens/s  MFU 43%"


def _last_line(monkeypatch, width, description, note):
    file = StringIO()
    terminal = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    monkeypatch.setattr(console, "console", terminal)
    with console.progress(description, total=25_000) as advance:
        advance(24_000, note)
    return re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", file.getvalue()).split("\r")[-1].strip("\n")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("description", ["training", "pretraining the miniature", "tuned: jailbreakbench_benign"])
@pytest.mark.parametrize("note", ["", NOTE, "30 completions generated, 2,977 tokens/s"])
def test_a_bar_keeps_counts_and_times_whole_at_any_width(monkeypatch, width, description, note):
    line = _last_line(monkeypatch, width, description, note)
    assert len(line) == width
    shown = re.fullmatch(rf". {re.escape(description)} (?:[━╸]+ +)? ?24000/25000 \d:\d\d:\d\d [-:\d]{{7}}(.*)", line)
    assert shown, line
    # As much of the note as fits, in whole parts and from its beginning.
    kept = shown.group(1).strip()
    rest = note.removeprefix(kept)
    assert note.startswith(kept) and (rest == "" or kept == "" or rest.startswith(("  ", ", ")))


def test_the_bar_gives_way_before_the_note_and_the_note_from_its_end(monkeypatch):
    assert "━" in _last_line(monkeypatch, 120, "training", NOTE) and NOTE in _last_line(monkeypatch, 120, "training", NOTE)
    at_98, at_80 = (_last_line(monkeypatch, width, "training", NOTE) for width in (98, 80))
    assert "━" not in at_98 and NOTE in at_98
    assert "lr 1.1e-04" in at_80 and "tokens/s" not in at_80


def test_a_description_longer_than_the_terminal_is_all_that_is_cut(monkeypatch):
    line = _last_line(monkeypatch, 50, "x" * 60, NOTE)
    assert re.search(r"x… +24000/25000 0:00:\d\d -:--:--", line) and "loss" not in line


def test_lines_are_not_wrapped(output):
    console.say("word " * 20)
    assert len(output.getvalue().splitlines()) == 1
