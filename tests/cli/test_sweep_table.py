"""How a sweep ends: a table of its points that says what differs, what came out, how each ended and where it lies."""

import os
import re
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning.cli import entry, sweep_table
from dgr_lightning.cli.sweep_points import PointOutcome
from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from tests.helpers.finished_run import REFINEMENT, make_summary
from tests.helpers.runs import ROOT


def shown(outcomes, monkeypatch, width=80):
    console = Console(file=StringIO(), width=width, color_system=None)
    monkeypatch.setattr(sweep_table, "console", console)
    sweep_table.show_points(outcomes)
    return console.file.getvalue()


def finished(folder, number, *overrides, summary=None, **more):
    run = folder / f"run-{number}"
    write_json(run / "summary.json", summary or make_summary())
    return PointOutcome(number, list(overrides), 0, directory=str(run), **more)


def test_a_table_shows_what_differs_the_figures_and_where(tmp_path, monkeypatch):
    points = [
        finished(tmp_path, 0, "refine=vanilla", "seed=1", "data.limit=48"),
        finished(tmp_path, 1, "refine=dgr", "seed=1", "data.limit=48", shown=True),
        PointOutcome(2, ["refine=dgr", "seed=-1", "data.limit=48"], 2, "seed=-1: expected more"),
    ]
    text = shown(points, monkeypatch)
    assert re.search(r"point +refine +seed +reasoning +refusal +over-refusal +tax +status", text)
    assert "data.limit" not in text
    assert re.search(r"1 +vanilla +1 +78\.0 +100\.0 +0\.0 +\+20\.0 +done", text)
    assert re.search(r"2 +dgr +1 .* shown", text) and re.search(r"3 +dgr +-1 +failed", text)
    assert f"point 1  {tmp_path}/run-0\n" in text and f"point 2  {tmp_path}/run-1\n" in text and "point 3" not in text


def test_where_there_is_room_figures_have_their_intervals(tmp_path, monkeypatch):
    points = [finished(tmp_path, number, f"seed={number}") for number in (1, 2)]
    text = shown(points, monkeypatch, width=120)
    for figure in ("78.0 (64.8–87.2)", "100.0 (92.9–100.0)", "+20.0 (+12.0, +28.0)"):
        assert text.count(figure) == 2


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_overrides_fold_and_figures_stay_whole(tmp_path, monkeypatch, width):
    points = [finished(tmp_path, number, f"data.path=/data/{'x' * 90}{number}.jsonl", f"seed={number}") for number in (1, 2)]
    text = shown(points, monkeypatch, width)
    table = text.partition("  point 2")[0]
    assert all(len(line.rstrip()) <= width for line in table.splitlines())
    assert text.count("78.0") == 2 and text.count("+20.0") == 2 and "…" not in text


def test_points_of_other_commands_have_the_figures_that_they_have(tmp_path, monkeypatch):
    refined = make_summary(refinement=REFINEMENT)
    text = shown([finished(tmp_path, number, f"seed={number}", summary=refined) for number in (1, 2)], monkeypatch)
    assert text.count("37 of 40") == 2 and text.count("8.500 → 0.150") == 2 and "tax" not in text
    evaluated = make_summary(base=make_parts())
    text = shown([finished(tmp_path, number, f"seed={number}", summary=evaluated) for number in (1, 2)], monkeypatch)
    assert "98.0" in text and "reasoning" in text and "tax" not in text


def make_parts():
    from tests.helpers.finished_run import estimates

    return estimates(0.98, 0.1)


def test_a_lone_point_is_told_by_all_of_its_overrides(tmp_path, monkeypatch):
    assert re.search(
        r"point +seed +data\.limit +reasoning", shown([finished(tmp_path, 0, "seed=1", "data.limit=48")], monkeypatch)
    )


def test_a_summary_that_cannot_be_reached_leaves_the_figures_out(tmp_path, monkeypatch):
    assert re.search(r"1 +1 +done", shown([PointOutcome(0, ["seed=1"], 0, directory=str(tmp_path / "away"))], monkeypatch))


SCRIPT = """
import sys
from pathlib import Path
from dgr_lightning.cli.entry import entry
from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from tests.helpers.finished_run import make_summary

@entry("train")
def main(cfg, place):
    if cfg.seed == 2:
        raise UserError("row 3 has no answer")
    place.directory = Path(f"runs/seed-{cfg.seed}")
    write_json(place.directory / "summary.json", make_summary())
    return 1.0

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_table_survives_its_launcher_and_hydra_adds_no_line(launcher, tmp_path):
    launched = []
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
        launched = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), "-m", *launched, "seed=1,2,3"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert re.search(r"1 +1 +78\.0 .*done\s+2 +2 +failed\s+3 +3 +78\.0 .*done", done.stdout), done.stdout
    assert "point 3  runs/seed-3" in done.stdout
    assert "Error executing job" not in done.stderr
    assert done.stderr.count("row 3 has no answer") == 2  # where it happened, and in the list at the end


@pytest.mark.slow
def test_a_sweep_none_of_whose_points_came_to_a_run_leaves_no_folder(run_script, tmp_path, capsys):
    def refuse(cfg):
        raise UserError("no column of that name")

    code, _ = run_script("-m", "seed=1,2", main=refuse)
    assert code == 2 and list(tmp_path.iterdir()) == []
    assert "2 of 2 points failed.\n" in capsys.readouterr().err
    run_script("-m", "seed=1,2", "hydra.sweep.dir=swept", main=refuse)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    run_script("-m", "seed=1,2", main=refuse)
    assert (tmp_path / "runs" / "multirun.yaml").exists()  # the folder was somebody's before


@pytest.mark.parametrize("command", ["train", "refine"])
def test_a_failed_guess_at_columns_leaves_no_directory(command, tmp_path, monkeypatch, capsys):
    from dgr_lightning.pipeline import commands

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "response": "<think>t</think>a"}\n')
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", [f"{command}.py"])
    arguments = [f"data.path={rows}", "data.language=micro"]
    for line in (arguments, ["-m", "seed=1,2", *arguments]):
        assert entry.run(getattr(commands, command), command, line) == 2
        assert "data.fields.prompt: no row has a column 'prompt'" in capsys.readouterr().err
        assert list(here.iterdir()) == []
