import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dgr_lightning.experiments import grid
from dgr_lightning.files import write_json, write_text


def _run(folder: Path, name: str, finished: float | None) -> None:
    write_text(folder / name / "config.yaml", yaml.safe_dump({"seed": 1}))
    write_json(folder / name / ".run.json", {"hash": "ab", "described": {"of": name}})
    if finished is not None:
        write_json(folder / name / "summary.json", {"of": name})
        os.utime(folder / name / "summary.json", (finished, finished))


def test_finished_runs_are_read_in_the_order_in_which_they_finished(tmp_path):
    for name, finished in (("a", 300.0), ("b", 100.0), ("c", None), ("d", 100.0)):
        _run(tmp_path, name, finished)
    runs = grid.finished_runs(tmp_path)
    assert [(run.directory.name, run.finished) for run in runs] == [("b", 100.0), ("d", 100.0), ("a", 300.0)]
    assert runs[2].config == {"seed": 1} and runs[2].summary == {"of": "a"} and runs[2].hashed() == {"of": "a"}
    assert grid.finished_runs(tmp_path / "nothing") == []


@pytest.mark.parametrize(("code", "finished"), [(0, True), (1, False)])
def test_a_sweep_is_one_command_of_train_and_says_whether_every_point_finished(monkeypatch, capsys, code, finished):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(grid.subprocess, "run", run)
    assert grid.sweep("name", [grid.override("sft.lr", (1e-5, 0.001)), "data.limit=8"]) is finished
    assert commands == [[sys.executable, str(grid.TRAIN), "-m", "name=name", "sft.lr=1e-05,0.001", "data.limit=8"]]
    assert " ".join(commands[0]) in capsys.readouterr().out
    assert grid.TRAIN.is_file()


def test_options_are_those_of_every_grid():
    args = grid.arguments("What it does.\n\nMore.", "frontier", "frontier.md").parse_args([])
    assert (args.seeds, args.name, args.out, args.draw, args.overrides) == ((1, 2, 3), "frontier", Path("docs"), False, [])
    args = grid.arguments("", "x", "").parse_args(["--seeds", "4,5", "--draw", "--", "data=micro-r1act", "sft.lr=1e-3"])
    assert (args.seeds, args.draw, args.overrides) == ((4, 5), True, ["data=micro-r1act", "sft.lr=1e-3"])
