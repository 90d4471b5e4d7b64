"""Engines that a run starts: one over the base and one over the tuned model, in this process and in child processes."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from dgr_lightning.cli import entry
from dgr_lightning.cli.failures import DONE
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json
from dgr_lightning.pipeline import commands
from dgr_lightning.pipeline.execution import Stage, execute_together
from tests.helpers.configs import config
from tests.helpers.runs import last_of_each, run, summary_of

# An engine from outside: transformers', which writes down every start.
COUNTED = """
import os
from pathlib import Path

from dgr_lightning.engines.spec import EngineSpec
from dgr_lightning.engines.transformers import ENGINE as TRANSFORMERS


def _open(cfg, folder, chat):
    with open(os.environ["STARTED"], "a") as file:
        file.write(f"{'tuned' if folder.name == 'model' else 'base'} {os.getpid()}\\n")
    return TRANSFORMERS.open(cfg, folder, chat)


ENGINE = EngineSpec(open=_open, reads=TRANSFORMERS.reads)
"""
FEW = [
    *("data.limit=8", "evaluation.limit=2", "evaluation.max_new_tokens=40", "probes.every=0", "sft.max_steps=1"),
    *("engine.name=counted_engine:ENGINE", "engine.precision=fp32", "trainer.precision=fp32"),
]
DIVERGENCE = ["shift.prompts=2", "shift.max_new_tokens=20", "probes.tasks=[micro-short]"]


class Started:
    """The starts that runs have written down since the last look."""

    def __init__(self, file: Path):
        self.file = file

    def take(self) -> list[str]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.file.unlink(missing_ok=True)
        self.processes = {line.split()[1] for line in lines}
        return [line.split()[0] for line in lines]


@pytest.fixture
def started(tmp_path, monkeypatch):
    (tmp_path / "counted_engine.py").write_text(COUNTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    return Started(tmp_path / "started")


def check_order(printed: str, run_dir: Path) -> None:
    titles = ["Refinement", "Shift", "Traces of the base", "Evaluation of the base model", "Training"]
    titles += ["Evaluation of the tuned model", "Divergence from the base"]
    places = [printed.index(f"{title} ─") for title in titles]
    assert places == sorted(places), "stages begin in this order, each under its own heading"
    seconds = summary_of(run_dir)["wall_seconds"]
    assert list(seconds) == ["refine", "shift", "evaluate_base", "train", "evaluate_tuned"] and all(seconds.values())


@pytest.mark.slow
def test_a_run_in_child_processes_starts_two_engines(tmp_path, cache, started):
    """Refinement, shift, base evaluation and the base's part of the divergence share one; all of the tuned model the other."""
    ranks = ["trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu"]
    printed = run(tmp_path / "run", cache, *FEW, *DIVERGENCE, *ranks)
    assert started.take() == ["base", "tuned"] and len(started.processes) == 2
    check_order(printed, tmp_path / "run")


@pytest.mark.slow
def test_a_run_in_one_process_starts_two_engines_and_none_for_what_is_stored(tmp_path, started, monkeypatch, capsys):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["command"])

    def start(command: str, place: str, *overrides: str) -> str:
        one = ["trainer=cpu", f"hydra.run.dir={tmp_path / place}", *overrides]
        assert entry.run(getattr(commands, command), command, last_of_each(*one)) == DONE
        return capsys.readouterr().out

    check_order(start("train", "run", *FEW, *DIVERGENCE), tmp_path / "run")
    assert started.take() == ["base", "tuned"] and len(started.processes) == 1
    # Another limit of the shift: what both models have written is stored, and only the shift is scored again.
    assert start("train", "run", *FEW, *DIVERGENCE, "shift.limit=4").count("done before") == 6
    assert started.take() == ["base"]
    # The base was evaluated by another run.
    start("evaluate", "evaluated", *FEW[1:3], *FEW[5:7])
    assert started.take() == []


def work(name: str, run_dir: Path) -> dict[str, str]:
    """A stage that writes down that it ran, and fails where it is asked to."""
    with open(run_dir / "ran", "a") as file:
        file.write(f"{name} ")
    if (run_dir / f"fail-{name}").exists():
        raise UserError(f"{name} fails")
    return {"of": name}


class Model:
    """Stands for the model that stages share."""

    num_released = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.num_released += 1


@pytest.fixture
def execute(tmp_path):
    def run_all(measured="m") -> list[str]:
        """Runs three stages; returns which have run now."""
        cfg = config(trainer__accelerator="cpu", trainer__strategy="single")
        stages = [Stage(name, name, partial(work, name), measured=measured) for name in ("first", "second", "third")]
        (tmp_path / "ran").write_text("")
        try:
            run_all.records = execute_together(stages, run_all.model, tmp_path, cfg)
        finally:
            run_all.ran = (tmp_path / "ran").read_text().split()
        return run_all.ran

    run_all.model = Model()
    return run_all


def test_what_was_done_before_a_failure_stays_done(execute, tmp_path):
    (tmp_path / "fail-second").touch()
    with pytest.raises(UserError, match="second fails"):
        execute()
    assert execute.ran == ["first", "second"] and execute.model.num_released == 1
    (tmp_path / "fail-second").unlink()
    assert execute() == ["second", "third"] and execute.model.num_released == 2
    assert {name: record["of"] for name, record in execute.records.items()} == {
        name: name for name in ("first", "second", "third")
    }
    assert all(record["seconds"] >= 0 and record["measured"] == "m" for record in execute.records.values())


def test_stages_that_are_done_are_read_and_nothing_is_opened(execute, tmp_path, capsys):
    execute()
    assert execute() == [] and execute.model.num_released == 1
    assert capsys.readouterr().out.count("done before") == 3
    assert execute(measured="other") == ["first", "second", "third"]
    record = tmp_path / "stages" / "third.json"
    record.write_text(json.dumps(read_json(record) | {"measured": "older"}))
    assert execute(measured="other") == ["third"]
