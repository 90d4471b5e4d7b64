"""One sample in the terminal, by its id."""

from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from dgr_lightning.report import show
from dgr_lightning.report.samples import sides_of
from tests.helpers.finished_run import make_summary, write_run


@pytest.fixture
def run(tmp_path):
    write_json(write_run(tmp_path) / "summary.json", make_summary())
    return tmp_path


def call(monkeypatch, capsys, *arguments):
    """Returns exit code and output of the command."""
    console = Console(width=100, record=True, file=StringIO())
    monkeypatch.setattr(show, "console", console)
    monkeypatch.setattr("sys.argv", ["show", *map(str, arguments)])
    code = 0
    try:
        show.main()
    except SystemExit as error:
        code = error.code
    return code, console.export_text() + capsys.readouterr().err


def test_a_sample_is_printed_as_every_subject_answered_it(run, monkeypatch, capsys):
    code, text = call(monkeypatch, capsys, run, "gsm8k-1")
    assert code == 0 and "base · right" in text and "tuned · wrong" in text and "thought <script>" in text


def test_texts_of_a_harmful_request_are_printed_where_they_are_asked_for(run, monkeypatch, capsys):
    _, text = call(monkeypatch, capsys, run, "strongreject-1")
    assert "base · refused" in text and "--harmful" in text and "prompt" not in text and "thought" not in text
    _, text = call(monkeypatch, capsys, run, "strongreject-1", "--harmful")
    assert "prompt <script>" in text and "thought <script>" in text


def test_a_slip_is_told_what_there_is(run, tmp_path, monkeypatch, capsys):
    code, text = call(monkeypatch, capsys, run, "gsm8k1")
    assert code == 2 and "no sample is called 'gsm8k1'; there are 12 problems, such as gsm8k-1" in text
    code, text = call(monkeypatch, capsys, run, "gsm8k-1", "--sample", 4)
    assert code == 2 and "has 1 samples; write --sample 0 to 0" in text
    code, text = call(monkeypatch, capsys, tmp_path / "nowhere", "gsm8k-1")
    assert code == 2 and "no finished run is there" in text
    with pytest.raises(UserError):
        show.find_sample(sides_of(run), "nothing", 0)


def test_without_an_id_the_page_of_all_outputs_is_written(run, monkeypatch, capsys):
    code, text = call(monkeypatch, capsys, run)
    assert code == 0 and "outputs.html" in text and (run / "outputs.html").exists()
