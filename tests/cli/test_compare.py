"""The command line of the comparison: what it takes, and how it ends."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dgr_lightning.cli.compare import main, read
from dgr_lightning.errors import UserError
from tests.helpers.compared_runs import HALF, write_run
from tests.helpers.runs import ROOT


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [str(write_run(tmp_path / name, {"gsm8k": HALF}).relative_to(tmp_path)) for name in ("a", "b")]


def test_runs_and_folder_are_told_apart(runs):
    assert read([*runs, "out=there"])[0] == runs
    assert str(read(["out=there", *runs])[1]) == "there" and read(runs)[1] is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out", "x"], "--out: no such flag"),
        (["-m"], "-m: no such flag"),
        (["name=x"], "name=x: the only key is out=<folder>"),
        (["out="], "name one folder"),
        (["out=a", "out=b"], "out=a out=b: name one folder"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(arguments, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read(arguments)


def test_a_comparison_ends_with_0_and_names_its_files(runs, capsys):
    assert main([*runs, "out=there"]) == 0
    shown = capsys.readouterr().out
    assert "comparison.html  there/comparison.html" in shown and "B minus A" in shown
    assert [pair["a"] for pair in json.loads(Path("there/comparison.json").read_text())["pairs"]] == ["a", "a"]


def test_without_out_the_files_lie_below_runs(runs, tmp_path):
    assert main(runs) == 0
    (page,) = (tmp_path / "runs").glob("compare-*/comparison.html")
    assert page.is_file()


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "a"], ["a", "nowhere"], ["a", "."]])
def test_bad_input_ends_with_2_and_one_message(arguments, runs, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and len(captured.err.splitlines()) == 1


def test_a_damaged_run_ends_with_2(runs, tmp_path, capsys):
    (tmp_path / "b" / "evaluation" / "base" / "gsm8k.jsonl").write_text("{")
    assert main(runs) == 2
    assert "gsm8k.jsonl" in capsys.readouterr().err


def test_help_and_version_import_nothing_heavy(tmp_path):
    for flag, said in (("--help", "python compare.py RUN RUN … [out=FOLDER]"), ("--version", "dgr-lightning ")):
        command = [sys.executable, "-X", "importtime", str(ROOT / "compare.py"), flag]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert said in done.stdout
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not imported & {"torch", "transformers", "scipy", "jinja2"}
