import re
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dgr_lightning import console
from dgr_lightning.cli.failures import show_failure
from dgr_lightning.errors import UserError


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
    assert len(line) == width - 2  # room for ^C
    shown = re.fullmatch(rf". {re.escape(description)} (?:[━╸]+ +)? ?24000/25000 \d:\d\d:\d\d [-:\d]{{7}}(.*)", line)
    assert shown, line
    # As much of the note as fits, in whole parts and from its beginning.
    kept = shown.group(1).strip()
    rest = note.removeprefix(kept)
    assert note.startswith(kept) and (rest == "" or kept == "" or rest.startswith(("  ", ", ")))


def test_the_bar_gives_way_before_the_note_and_the_note_from_its_end(monkeypatch):
    assert "━" in _last_line(monkeypatch, 122, "training", NOTE) and NOTE in _last_line(monkeypatch, 122, "training", NOTE)
    at_100, at_82 = (_last_line(monkeypatch, width, "training", NOTE) for width in (100, 82))
    assert "━" not in at_100 and NOTE in at_100
    assert "lr 1.1e-04" in at_82 and "tokens/s" not in at_82


def test_a_description_longer_than_the_terminal_is_all_that_is_cut(monkeypatch):
    line = _last_line(monkeypatch, 50, "x" * 60, NOTE)
    assert re.search(r"x… +24000/25000 0:00:\d\d -:--:--", line) and "loss" not in line


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


HOSTILE = "a\x1b]0;owned\x07b\x9b2J\rc\u202ed"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OWN = re.compile(r"\x1b\[[0-9;]*m")  # colours


def printed(print_to) -> str:
    file = StringIO()
    print_to(console.SafeConsole(file=file, width=120, highlight=False, force_terminal=True, color_system="standard"))
    return file.getvalue()


def table() -> Table:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE, style="red")
    table.add_row(Text(HOSTILE), HOSTILE)
    return table


@pytest.mark.parametrize(
    "print_to",
    [
        lambda console: console.print(f"[red]{HOSTILE}[/]"),
        lambda console: console.print(Text(HOSTILE, style="bold"), soft_wrap=True),
        lambda console: console.print(Panel(Text(HOSTILE), title=HOSTILE)),
        lambda console: console.rule(HOSTILE, align="left"),
        lambda console: console.print(table()),
    ],
    ids=["markup", "text", "panel", "rule", "table"],
)
def test_whoever_prints_control_characters_are_shown_and_not_sent(print_to):
    shown = printed(print_to)
    assert "\\x1b]0;owned" in shown.replace("\n", "")
    assert OBEYED.findall(OWN.sub("", shown)) == []


def test_colours_stay():
    assert printed(lambda console: console.print("[red]x[/]")) == "\x1b[31mx\x1b[0m\n"


def test_a_bar_shows_control_characters_of_its_description_and_note(monkeypatch):
    file = StringIO()
    safe = console.SafeConsole(file=file, width=200, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "console", safe)
    with console.progress(HOSTILE, total=1) as advance:
        advance(1, HOSTILE)
    moves = re.sub(r"\x1b\[\??[0-9;]*[A-Za-z]|\r", "", file.getvalue())
    assert "\\x1b]0;owned" in moves and OBEYED.findall(moves) == []


def test_a_failure_is_shown_without_control_characters(capsys):
    def fail() -> None:
        raise ValueError(HOSTILE)

    with pytest.raises(ValueError) as caught:
        fail()
    show_failure(caught.value)
    show_failure(UserError(f"[/] [bold]{HOSTILE}"))
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "[/] [bold]a\\x1b]0;owned" in shown
    assert OBEYED.findall(shown) == []
