"""A grid: one sweep a base, in processes that share the bases; finished runs read back."""

import os
import threading
from types import SimpleNamespace

import pytest

from dgr_lightning.config import StudyConfig
from dgr_lightning.experiments import grid
from tests.helpers.runs import ROOT
from tests.helpers.study_runs import finished_run


def ended(code: int) -> SimpleNamespace:
    """A process that has ended."""
    return SimpleNamespace(wait=lambda: code)


def test_finished_trainings_are_read_in_the_order_in_which_they_finished(tmp_path):
    for seed, finished in ((1, 300.0), (2, 100.0), (3, None), (4, 200.0)):
        summary = finished_run(tmp_path, "dgr", 1e-3, 7, seed, 0.8, probe=(0.7, 0.9, 0.2)) / "summary.json"
        if finished is None:
            summary.unlink()
        else:
            os.utime(summary, (finished, finished))
    runs = grid.finished_runs(tmp_path / "grid")
    assert [(run.seed, run.finished) for run in runs] == [(2, 100.0), (4, 200.0), (1, 300.0)]
    assert (runs[0].base, runs[0].arm, runs[0].lr) == (7, "dgr", 1e-3)
    assert runs[0].hashed()["sft"]["lr"] == 1e-3
    assert runs[0].probe == {"reasoning_accuracy": 0.7, "refusal_rate": 0.9, "over_refusal_rate": 0.2}
    assert runs[0].tax.value == pytest.approx(0.1)
    assert grid.finished_runs(tmp_path / "nothing") == []


@pytest.mark.parametrize(("workers", "threads"), [(1, None), (2, "1")])
def test_every_base_is_a_sweep_of_train_with_its_share_of_the_cores(tmp_path, monkeypatch, workers, threads):
    commands, environments = [], []

    def run(command, env, **options):
        commands.append(command)
        environments.append(env.get("OMP_NUM_THREADS"))
        return ended(1 if "model.seed=4" in command else 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(grid.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(grid.subprocess, "Popen", run)
    study = StudyConfig(bases=[3, 4], seeds=[1, 2], workers=workers)
    assert grid.sweep(study, "name", [grid.override("sft.lr", (1e-5, 0.001))], 4) is False
    expected = [["-m", "name=name", f"model.seed={base}", "seed=1,2", "sft.lr=1e-05,0.001"] for base in (3, 4)]
    assert sorted(command[-5:] for command in commands) == expected
    assert environments == [threads] * 2
    study.bases = [3]
    assert grid.sweep(study, "name", [], 4) is True


def test_of_two_overrides_of_one_key_the_last_one_counts(tmp_path, monkeypatch):
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid.subprocess, "Popen", lambda command, **options: commands.append(command) or ended(0))
    assert grid.sweep(StudyConfig(bases=[0], workers=1), "name", ["sft.lr=1", "data.limit=8", "sft.lr=2,3"], 1)
    assert commands[0][-2:] == ["sft.lr=2,3", "data.limit=8"]


def test_the_users_own_number_of_threads_stays(tmp_path, monkeypatch):
    environments = []

    def run(command, env, **options):
        environments.append(env["OMP_NUM_THREADS"])
        return ended(0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(grid.subprocess, "Popen", run)
    assert grid.sweep(StudyConfig(bases=[0, 1], workers=2), "name", [], 1)
    assert environments == ["3", "3"]


def test_the_project_is_found_beside_the_users_own_python_path(tmp_path, monkeypatch):
    paths = []

    def run(command, env, **options):
        paths.append(env["PYTHONPATH"].split(grid.os.pathsep))
        return ended(0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr(grid.subprocess, "Popen", run)
    assert grid.sweep(StudyConfig(bases=[0], workers=1), "name", [], 1)
    assert paths == [[str(ROOT), "/elsewhere"]]


def test_a_study_that_is_stopped_ends_its_sweeps_and_begins_no_other(tmp_path, monkeypatch):
    begun, stopped = threading.Event(), threading.Event()
    commands = []

    def run(command, **options):
        commands.append(command)
        begun.set()
        return SimpleNamespace(wait=lambda: stopped.wait() and 143, terminate=stopped.set)

    def interrupted(*arguments, **options):
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid.subprocess, "Popen", run)
    monkeypatch.setattr(grid, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid.sweep(StudyConfig(bases=[0, 1, 2], workers=1), "name", [], 1)
    assert stopped.is_set() and len(commands) == 1
