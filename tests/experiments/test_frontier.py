import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dgr_lightning.config import Config
from dgr_lightning.experiments import frontier, grid
from dgr_lightning.files import write_json
from dgr_lightning.pipeline.identity import identify
from dgr_lightning.pipeline.place import Place
from dgr_lightning.pipeline.run_directory import RunDir
from dgr_lightning.report.summary import build_summary
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.metrics import Estimates

LRS, SEEDS = (3e-4, 1e-3), (1, 2)


def _estimates(accuracy: float, over_refusal: float) -> Estimates:
    def share(value: float) -> Estimate:
        return rate([[index < round(100 * value)] for index in range(100)])

    return {
        "gsm8k": {"accuracy": share(accuracy)},
        "strongreject": {"refusal_rate": share(1.0)},
        "xstest": {"over_refusal_rate": share(over_refusal)},
    }


def _run(root: Path, arm: str, lr: float, seed: int, accuracy: float, *, model: str = "m", temperature: float = 0.6) -> None:
    """Writes a finished run as the pipeline leaves it."""
    cfg = Config(name="grid", seed=seed)
    cfg.refine.strategy, cfg.sft.lr, cfg.refine.temperature = arm, lr, temperature
    cfg.engine.name, cfg.engine.precision = "transformers", "fp32"
    with RunDir.open(cfg, identify(cfg, {"model": model, "data": "d"}), Place(root)) as run:
        points = Estimate(100 * (0.9 - accuracy), -100.0, 100.0, 100)
        tax = {"points": points, "relative_percent": points}
        parts = {"base": _estimates(0.9, 0.0), "tuned": _estimates(accuracy, 0.1), "tax": tax}
        write_json(run.path / "summary.json", build_summary(run.hash, {}, **parts))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of a whole grid, as `runs/grid` of the working directory."""
    monkeypatch.chdir(tmp_path)
    root = Path("runs")
    for lr in LRS:
        for seed in SEEDS:
            _run(root, "dgr", lr, seed, 0.88 + seed / 100)
            _run(root, "vanilla", lr, seed, (0.8 if lr < 5e-4 else 0.4) + seed / 100)
    return root / "grid"


def test_points_are_read_from_what_runs_leave_on_disk(folder):
    points = frontier.select(frontier.read_points(folder), LRS, SEEDS)
    expected = [(arm, lr, seed) for arm in frontier.ARMS for lr in LRS for seed in SEEDS]
    assert [(point.arm, point.lr, point.seed) for point in points] == expected
    assert frontier.missing_points(points, LRS, SEEDS) == []
    missing = [f"{arm}, learning rate 2e-3, seed 1" for arm in frontier.ARMS]
    assert frontier.missing_points(points, (*LRS, 2e-3), (1,)) == missing


@pytest.mark.parametrize("change", [{"model": "another"}, {"temperature": 1.0}])
def test_runs_of_another_setting_are_not_mixed_in(folder, capsys, change):
    _run(folder.parent, "dgr", LRS[0], 1, 0.5, **change)
    points = frontier.select(frontier.read_points(folder), LRS, SEEDS)
    dgr = [point for point in points if point.arm == "dgr"]
    assert [point.summary["tuned"]["headline"]["reasoning_accuracy"]["value"] for point in dgr] == [0.5]
    assert len(points) == (1 if "model" in change else 5)
    assert "left out" in capsys.readouterr().err


def test_unfinished_runs_and_other_points_do_not_count(folder):
    next(folder.glob("*/summary.json")).unlink()
    assert len(frontier.select(frontier.read_points(folder), LRS, SEEDS)) == 7
    assert frontier.select(frontier.read_points(folder), (5e-5,), SEEDS) == []


def test_script_draws_what_is_there(folder, tmp_path, monkeypatch, capsys):
    options = ["--draw", "--name", "grid", "--lrs", "3e-4,1e-3", "--seeds", "1,2", "--out", str(tmp_path / "docs")]
    monkeypatch.setattr(sys, "argv", ["frontier.py", *options])
    assert frontier.main() == 0
    table = (tmp_path / "docs" / "frontier.md").read_text()
    assert table in capsys.readouterr().out
    (line,) = [line for line in table.splitlines() if line.startswith("| vanilla | 1e-3")]
    assert "| 2 | 41.5 (" in line and "| 48.5 |" in line
    root = ElementTree.fromstring((tmp_path / "docs" / "frontier.svg").read_text())
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 4
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 2 + 1 + 4


def test_script_runs_the_whole_grid_as_one_sweep_and_fails_where_points_are_missing(folder, monkeypatch, capsys):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(grid.subprocess, "run", run)
    options = ["--name", "grid", "--lrs", "3e-4,1e-3", "--seeds", "1,2,3", "--out", "docs", "--", "data=micro-r1act"]
    monkeypatch.setattr(sys, "argv", ["frontier.py", *options])
    assert frontier.main() == 1
    overrides = ["name=grid", "refine=vanilla,dgr", "sft.lr=0.0003,0.001", "seed=1,2,3", "data=micro-r1act"]
    assert commands == [[sys.executable, str(grid.TRAIN), "-m", *overrides]]
    assert "vanilla, learning rate 3e-4, seed 3" in capsys.readouterr().err
