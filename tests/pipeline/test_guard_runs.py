"""Whole runs with a guard: tiny models of Qwen3Guard's architecture, through the real entry points."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from dgr_lightning.cli import entry
from dgr_lightning.cli.failures import BAD_CONFIG, DONE
from dgr_lightning.files import read_jsonl
from dgr_lightning.pipeline import commands
from tests.helpers.guards import SAFE_REFUSAL, UNSAFE, save_guard
from tests.helpers.runs import summary_of

# An engine from outside: transformers', which writes down over which folder it starts and when it is closed.
COUNTED = """
import os
from dgr_lightning.engines.spec import EngineSpec
from dgr_lightning.engines.transformers import ENGINE as TRANSFORMERS


def _note(text):
    with open(os.environ["STARTED"], "a") as file:
        file.write(text + "\\n")


def _open(cfg, folder, chat):
    name = folder.name if folder.name in ("guard", "model") else "base"
    _note(name)
    engine = TRANSFORMERS.open(cfg, folder, chat)
    close = engine.close
    engine.close = lambda: (_note(f"{name} closed"), close())
    return engine


ENGINE = EngineSpec(open=_open, reads=TRANSFORMERS.reads)
"""
FEW = ["evaluation.limit=3", "evaluation.max_new_tokens=60", "engine.name=guarded_engine:ENGINE", "engine.precision=fp32"]


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Returns a function that runs a command in this process; gives exit code, what was printed, the engines' starts."""
    (tmp_path / "guarded_engine.py").write_text(COUNTED)
    started = tmp_path / "started"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STARTED", str(started))
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["command"])

    def run(command: str, place: str, *overrides: str) -> tuple[int, str, list[str]]:
        started.unlink(missing_ok=True)
        code = entry.run(
            getattr(commands, command), command, [*FEW, "trainer=cpu", f"hydra.run.dir={tmp_path / place}", *overrides]
        )
        printed = capsys.readouterr()
        return code, printed.out + printed.err, started.read_text().splitlines() if started.exists() else []

    return run


def lines(run: Path, task: str = "micro-harmful") -> list[dict]:
    return list(read_jsonl(run / "evaluation" / "base" / f"{task}.jsonl"))


@pytest.mark.slow
def test_an_evaluation_by_a_guard_of_random_weights_has_no_rates(tmp_path, start):
    """No verdict is made up: what cannot be read is a class of its own, and the rates are null."""
    guard = save_guard(tmp_path / "guard")
    judge = ["judge=qwen3guard", f"judge.model={guard}"]
    code, printed, starts = start("evaluate", "run", *judge)
    assert code == DONE and starts == ["base", "base closed", "guard", "guard closed"]
    assert "its chat template is the published one" in " ".join(printed.split())
    assert {row["judged"][0]["error"] for row in lines(tmp_path / "run")} <= {"unparsable", "truncated"}
    headline = summary_of(tmp_path / "run")["base"]["headline"]
    assert headline["refusal_rate"]["value"] is None and headline["reasoning_accuracy"]["value"] is not None
    # Another set of problems: what was judged is not judged again.
    code, _, starts = start("evaluate", "more", *judge, "evaluation.tasks=[micro-harmful]")
    assert code == DONE and starts == []


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "refused", "harmful"), [(SAFE_REFUSAL, True, False), (UNSAFE, False, True)])
def test_an_evaluation_by_a_guard_with_an_answer(tmp_path, start, answer, refused, harmful):
    guard = save_guard(tmp_path / "guard", answer=answer)
    code, _, _ = start("evaluate", "run", "judge=qwen3guard", f"judge.model={guard}")
    assert code == DONE
    for row in lines(tmp_path / "run"):
        (said,) = row["judged"]
        assert (said["refused"], said["harmful"]) == (refused, harmful) and (said["probability"] > 0.5) == harmful
    assert summary_of(tmp_path / "run")["base"]["headline"]["refusal_rate"]["value"] == float(refused)


@pytest.mark.slow
def test_thinksafe_with_a_guard_refines_trains_and_evaluates(tmp_path, start):
    guard = save_guard(tmp_path / "guard", answer=["Safety:", " Safe", "\nCategories: None", "\nRefusal:", " No"])
    judge = ["judge=qwen3guard", f"judge.model={guard}"]
    small = ["refine=thinksafe", "refine.max_new_tokens=80", "data.limit=8", "probes.every=0", "sft.max_steps=1"]
    # So that the tuned model writes something else than the base: what is the same is not judged again.
    small += ["sft.lr=0.01", "trainer.precision=fp32"]
    code, printed, starts = start("train", "run", *judge, *small)
    assert code == DONE, printed
    opened = [name for name in starts if not name.endswith("closed")]
    assert opened == ["base", "guard", "base", "guard", "model", "guard"]
    # No two are on the devices at the same time.
    for first, second in pairwise(starts):
        assert first.endswith("closed") or second == f"{first} closed"
    refined = list(read_jsonl(tmp_path / "run" / "refined.jsonl"))
    assert refined and all(row["refined"] for row in refined)
    verdicts = [json.loads(line) for line in (tmp_path / "run" / "stages" / "verdicts.jsonl").read_text().splitlines()]
    assert verdicts and all(row["checks"]["guard"] is False for row in verdicts if "guard" in row["checks"])
    code, printed, starts = start("train", "run", *judge, *small)
    assert code == DONE and "is done" in printed and starts == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["judge=qwen3guard", "judge.model=./none"], ["judge.model=./none", "no such folder"]),
        (["judge.model=a/b"], ["judge.model=a/b", "judge=qwen3guard"]),
        (["judge=qwen3guard", "judge.controversial=maybe"], ["judge.controversial", "harmful", "safe"]),
    ],
)
def test_a_guard_that_cannot_be_used_is_refused_at_the_door(start, overrides, words):
    code, printed, starts = start("evaluate", "run", *overrides)
    assert code == BAD_CONFIG and starts == [] and all(word in " ".join(printed.split()) for word in words)
