"""The headline: its sweeps, headline.json, the line per run, and the README's section."""

import csv
import json
import time
from pathlib import Path

import pytest

from dgr_lightning.config import StudyConfig
from dgr_lightning.experiments import grid, headline
from tests.helpers.configs import config
from tests.helpers.study_runs import finished_run

LRS, DEFAULT, BASES, SEEDS = [5e-4, 1e-3, 2e-3], 1e-3, [0, 1, 2], [1, 2]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A config of a small headline whose runs all lie there, in both precisions at the default learning rate."""
    monkeypatch.chdir(tmp_path)
    for lr in headline.learning_rates(LRS, DEFAULT):
        for base in BASES:
            for seed in SEEDS:
                finished_run(tmp_path / "runs", "dgr", lr, base, seed, 0.89, over_refusal=0.0)
                finished_run(tmp_path / "runs", "vanilla", lr, base, seed, 0.5 - 100 * lr + base / 100, over_refusal=0.8)
    for arm, accuracy in (("vanilla", 0.3), ("dgr", 0.85)):
        for base in BASES:
            for seed in SEEDS:
                finished_run(tmp_path / "runs", arm, DEFAULT, base, seed, accuracy, precision="bf16")
    cfg = config(name="grid", sft__lr=DEFAULT)
    cfg.study = StudyConfig(name="headline", bases=BASES, seeds=SEEDS, lrs=LRS, out="findings")
    return cfg


@pytest.fixture
def sweeps(monkeypatch):
    """Records sweeps instead of running them; like them, it notes which finished runs were asked for."""
    recorded = []

    def sweep(study, name, overrides, num_runs):
        recorded.append((overrides, num_runs))
        for summary in Path("runs", name).glob("*/summary.json"):
            summary.with_name(".asked").touch()
        return True

    monkeypatch.setattr(headline, "sweep", sweep)
    return recorded


def test_the_grid_holds_the_default_and_its_neighbours():
    assert headline.learning_rates([1e-4, 1e-3], 1e-3) == [1e-4, 8e-4, 1e-3, 1.25e-3]


def test_one_sweep_over_learning_rates_and_one_a_precision(study, sweeps):
    assert headline.run(study, ["data.limit=48"], "the command")
    (grid, num_grid), *precisions = sweeps
    assert grid == [
        "probes.every=1000000",
        "probes.size=100",
        "data.limit=48",
        "refine=vanilla,dgr",
        "sft.lr=0.0005,0.0008,0.001,0.00125,0.002",
    ]
    assert num_grid == 20
    assert [overrides[-3:] for overrides, _ in precisions] == [
        ["sft.lr=0.001", f"trainer.precision={precision}", f"engine.precision={precision}"] for precision in ("bf16", "fp32")
    ]


def test_json_states_mean_interval_and_prediction_of_every_arm(study, sweeps, tmp_path):
    headline.run(study, [], "the command")
    found = json.loads((tmp_path / "findings" / "headline.json").read_text())
    assert (found["bases"], found["seeds"], found["learning_rate"]) == (BASES, SEEDS, DEFAULT)
    tax = found["arms"]["vanilla"]["tax"]
    assert tax["value"] == pytest.approx(0.49) and tax["low"] < 0.49 < tax["high"]
    assert tax["prediction"][0] < tax["low"] and tax["prediction"][1] > tax["high"]
    assert (tax["bases"], tax["runs"], tax["n"]) == (3, 6, 100)
    assert found["by_precision"]["bf16"]["vanilla"]["reasoning_accuracy"]["value"] == pytest.approx(0.3)
    assert found["over_learning_rates"]["vanilla"]["safe_tax"] is None
    assert found["over_learning_rates"]["dgr"]["safe_tax"]["value"] == pytest.approx(0.01)
    assert {"commit", "machine", "date"} <= found.keys()


def test_every_run_is_a_line(study, sweeps, tmp_path):
    headline.run(study, [], "the command")
    rows = list(csv.DictReader((tmp_path / "findings" / "headline.csv").open()))
    assert len(rows) == 2 * 5 * 6 + 2 * 6
    assert rows[0]["arm"] == "vanilla" and rows[0]["probe_over_refusal_rate"] == "0.8000"


@pytest.fixture
def published(monkeypatch, study):
    """The same as the published study, whose findings go into docs/ and the README."""
    study.study.out = "docs"
    monkeypatch.setattr(headline, "is_published", lambda study, overrides: not overrides)
    monkeypatch.setattr(grid, "is_published", lambda study, overrides: not overrides)
    return study


def test_the_readmes_section_is_written_between_its_marks(published, sweeps, tmp_path):
    (tmp_path / "README.md").write_text("above\n<!-- headline -->\nstale\n<!-- /headline -->\nbelow\n")
    assert headline.run(published, [], "the command")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("above\n<!-- headline -->\n3 bases") and text.endswith("<!-- /headline -->\nbelow\n")
    assert "stale" not in text and "`the command`" in text and (tmp_path / "docs" / "headline.json").exists()
    assert "moves vanilla's by −2.0 and +2.5 points, dgr's by +0.0 and +0.0 points" in text
    assert "| vanilla | 0 of 3 | none | none | none | none |" in text
    assert "| dgr | 3 of 3 | 2e-3 | 1.0 (" in text


@pytest.mark.parametrize("why", ["overrides", "missing"])
def test_another_study_or_a_part_of_it_does_not_replace_what_is_published(published, sweeps, tmp_path, why):
    (tmp_path / "README.md").write_text("<!-- headline -->\nkept\n<!-- /headline -->\n")
    if why == "missing":
        next((tmp_path / "runs" / "grid").glob("*/summary.json")).unlink()
    assert headline.run(published, ["data.limit=48"] if why == "overrides" else [], "the command") == (why == "overrides")
    assert "kept" in (tmp_path / "README.md").read_text() and not (tmp_path / "docs").exists()
    assert (tmp_path / "runs" / "grid" / "headline.json").exists()


def test_runs_that_the_command_neither_made_nor_found_do_not_count(study, sweeps, tmp_path, monkeypatch):
    time.sleep(0.3)
    monkeypatch.setattr(headline, "sweep", lambda *_: True)
    assert headline.run(study, [], "the command") is False
    assert not (tmp_path / "findings").exists()


def test_the_defaults_neighbours_are_not_of_the_fixed_grid(study, sweeps, tmp_path):
    headline.run(study, [], "the command")
    found = json.loads((tmp_path / "findings" / "headline.json").read_text())
    assert found["learning_rates"] == LRS and found["over_learning_rates"]["dgr"]["safe_share"]["n"] == len(LRS)
    assert found["over_learning_rates"]["dgr"]["safe_refusal"]["value"] == 1.0


def test_missing_runs_are_named_and_make_it_incomplete(study, sweeps, tmp_path, capsys):
    next((tmp_path / "runs" / "grid").glob("*vanilla*lr0.002*/summary.json")).unlink()
    assert headline.run(study, [], "the command") is False
    assert "no finished run of vanilla, learning rate 2e-3, base" in capsys.readouterr().out
