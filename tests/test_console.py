import re
from io import StringIO

import pytest
from rich.cells import cell_len
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


def test_a_bar_leaves_room_for_what_a_terminal_writes_at_ctrl_c(monkeypatch):
    """A line that is full to its end would be followed by ^C on the next one, and the bar drawn once more there."""
    file = StringIO()
    monkeypatch.setattr(console, "console", Console(file=file, width=100, force_terminal=True, color_system=None))
    with console.progress("training", total=4) as advance:
        advance(3, "loss 0.5  lr 1.0e-03  12,345 tokens/s  MFU 30%")
    lines = [re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]", file.getvalue())]
    assert "3/4" in "".join(lines) and 90 < max(map(cell_len, lines)) <= 98


def test_lines_are_not_wrapped(output):
    console.say("word " * 20)
    assert len(output.getvalue().splitlines()) == 1
