"""The frontier: which runs belong to it, its table and its picture."""

import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dgr_lightning.experiments import frontier
from dgr_lightning.experiments.grid import finished_runs
from tests.helpers.study_runs import finished_run

LRS, SEEDS, BASES = (3e-4, 1e-3), (1, 2), (0, 1, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the runs of a whole grid lie, in `grid`."""
    for lr in LRS:
        for base in BASES:
            for seed in SEEDS:
                finished_run(tmp_path, "dgr", lr, base, seed, 0.88 + seed / 100)
                finished_run(tmp_path, "vanilla", lr, base, seed, (0.8 if lr < 5e-4 else 0.4) + base / 100)
    return tmp_path


def selected(root: Path):
    return frontier.select(finished_runs(root / "grid"), LRS, SEEDS, BASES)


def test_runs_are_read_from_what_they_leave_on_disk(root):
    runs = selected(root)
    expected = [(arm, lr, base, seed) for arm in frontier.ARMS for lr in LRS for base in BASES for seed in SEEDS]
    assert [(run.arm, run.lr, run.base, run.seed) for run in runs] == expected
    assert frontier.missing(runs, LRS, SEEDS, BASES) == []
    missing = [f"{arm}, learning rate 2e-3, base 0, seed 1" for arm in frontier.ARMS]
    assert frontier.missing(runs, (*LRS, 2e-3), (1,), (0,)) == missing


def test_of_two_runs_of_one_point_the_later_one_counts(root):
    time.sleep(0.02)
    finished_run(root, "dgr", LRS[0], 0, 1, 0.5, temperature=1.0)
    dgr = [run for run in selected(root) if run.arm == "dgr"]
    assert len(dgr) == len(LRS) * len(BASES) * len(SEEDS)
    assert dgr[0].rate("reasoning_accuracy").value == 0.5


def test_unfinished_runs_and_other_points_do_not_count(root):
    next((root / "grid").glob("*/summary.json")).unlink()
    assert len(selected(root)) == 23
    assert frontier.select(finished_runs(root / "grid"), (5e-5,), SEEDS, BASES) == []


def test_a_line_states_bases_runs_and_both_intervals(root):
    table = frontier.markdown(selected(root), "Made here.")
    (line,) = [line for line in table.splitlines() if line.startswith("| vanilla | 1e-3")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["vanilla", "1e-3", "3", "6"]
    assert cells[4].startswith("41.0 (") and " to " in cells[5]
    assert cells[-2].startswith("49.0 (") and " to " in cells[-1]
    assert "Made here." in table
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 2 + 1 + 4


def test_the_picture_has_a_chart_per_rate_and_the_trade_off(root):
    drawing = frontier.drawing(selected(root))
    assert len(ElementTree.fromstring(drawing).findall("{http://www.w3.org/2000/svg}svg")) == 4
    assert "3 bases × 2 seeds" in drawing
