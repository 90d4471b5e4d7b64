"""The table of strategies: what arms drop is not trained on, and bases are the unit of replication."""

import os

import pytest

from dgr_lightning.config import StudyConfig
from dgr_lightning.experiments import strategies
from dgr_lightning.experiments.strategies import arms, markdown
from dgr_lightning.origin import Origin
from tests.helpers.configs import config
from tests.helpers.study_runs import finished_run

MADE = Origin("abc1234", "2 CPU cores", "2026-11-29")


def row(table: str, arm: str) -> list[str]:
    return next(line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith(f"| {arm} |"))


def test_kept_originals_count_and_dropped_examples_do_not(tmp_path):
    finished_run(tmp_path, "dgr", 1e-3, 0, 1, 0.9, fallback={"empty": 10})
    finished_run(tmp_path, "dgr", 1e-3, 1, 1, 0.7, fallback={"empty": 20})
    finished_run(tmp_path, "thinksafe", 1e-3, 0, 1, 0.5, fallback={"guard": 10}, num_examples=80)
    table = markdown(strategies.read_runs(tmp_path / "grid", [0, 1], [1]), MADE, "the command")
    assert row(table, "dgr")[1:7] == ["2", "2", "100", "empty 15", "30.0 → 32.0", "2.00 → 0.50"]
    assert row(table, "dgr")[7].startswith("80.0 (")
    assert row(table, "thinksafe")[1:6] == ["1", "1", "80", "guard 10", "30.0 → 40.0"]
    assert "2 CPU cores, 2026-11-29, commit abc1234" in table


def test_every_arm_is_a_choice_of_refine():
    from dgr_lightning.cli.overrides import choices

    assert {arm for arm in arms() if not arm.startswith("length-matched")} | {"length-matched"} == set(choices("refine"))


def test_the_last_run_of_each_base_and_seed_counts(tmp_path):
    def write(lr: float, base: int, seed: int, finished: float) -> None:
        os.utime(finished_run(tmp_path, "dgr", lr, base, seed, 0.5) / "summary.json", (finished, finished))

    write(2e-3, 0, 1, 3e8)
    write(1e-3, 0, 1, 1e8)
    write(1e-3, 1, 2, 2e8)
    write(1e-3, 9, 1, 4e8)
    runs = strategies.read_runs(tmp_path / "grid", [0, 1], [1, 2])
    assert {arm: [(run.base, run.seed, run.lr) for run in found] for arm, found in runs.items()} == {
        "dgr": [(0, 1, 2e-3), (1, 2, 1e-3)]
    }


def test_one_sweep_and_the_arms_that_are_missing(tmp_path, monkeypatch, capsys):
    sweeps = []
    monkeypatch.setattr(
        strategies, "sweep", lambda study, name, overrides, num_runs: sweeps.append((overrides, num_runs)) or True
    )
    monkeypatch.chdir(tmp_path)
    cfg = config(name="all")
    cfg.study = StudyConfig(name="strategies", bases=[0], seeds=[1, 2])
    assert strategies.run(cfg, ["data=micro-r1act"], "the command") is False
    alone = "refine=vanilla,dgr,dgr-answer-only,dgr-best-of-4,dgr-trace-only,filters-only,sdft,thinksafe"
    assert sweeps == [(["data=micro-r1act", alone], 16)]
    assert "runs are missing of vanilla, " in capsys.readouterr().out
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(("commit", "expected"), [("abc", "`x`, m, d, commit abc."), (None, "`x`, m, d.")])
def test_an_origin_is_a_sentence(commit, expected):
    assert Origin(commit, "m", "d").sentence("x") == expected
