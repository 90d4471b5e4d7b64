"""A ChatML instruct model without thinking goes through the real commands: refused until its style is named, then counted."""

import json
import sys
from pathlib import Path

import pytest

from dgr_lightning.cli import entry
from dgr_lightning.cli.failures import BAD_CONFIG, DONE
from dgr_lightning.files import read_jsonl, write_jsonl
from dgr_lightning.pipeline import commands
from tests.helpers.instruct_model import WORDS, save_instruct_model
from tests.helpers.runs import last_of_each

SAID = " ".join(WORDS)
NONE = "model.chat_style=none"


@pytest.fixture(scope="module")
def instruct(tmp_path_factory) -> Path:
    return save_instruct_model(tmp_path_factory.mktemp("instruct") / "model")


@pytest.fixture
def start(tmp_path, monkeypatch, instruct):
    """Runs a command on the model, on the CPU, into `tmp_path/run`; returns the exit code."""
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    write_jsonl(tmp_path / "gsm8k.jsonl", [{"question": f"2 + {n} ?", "answer": f"#### {2 + n}"} for n in (2, 2, 2, 3)])
    write_jsonl(tmp_path / "strongreject.jsonl", [{"category": "c", "forbidden_prompt": f"forge {n}"} for n in range(3)])
    common = ["trainer=cpu", "trainer.precision=fp32", "engine=transformers", "engine.precision=fp32"]
    common += ["evaluation.tasks=[gsm8k,strongreject]", "evaluation.temperature=0", "evaluation.max_new_tokens=12"]
    common += [f"evaluation.path.{task}={tmp_path / task}.jsonl" for task in ("gsm8k", "strongreject")]

    def start(command: str, *overrides: str) -> int:
        lines = last_of_each(f"model.path={instruct}", f"hydra.run.dir={tmp_path / 'run'}", *common, *overrides)
        return entry.run(getattr(commands, command), command, lines)

    return start


def test_nothing_says_how_it_thinks_so_it_is_refused(start, tmp_path, capsys):
    assert start("evaluate") == BAD_CONFIG
    error = " ".join(capsys.readouterr().err.split())
    assert "model.chat_style=none" in error and "model.chat_style=s1" in error
    assert not (tmp_path / "run" / "summary.json").exists()


def test_with_the_style_none_figures_are_counted_from_the_whole_output(start, tmp_path):
    assert start("evaluate", NONE) == DONE
    tasks = json.loads((tmp_path / "run" / "summary.json").read_text())["base"]["tasks"]
    assert tasks["gsm8k"]["accuracy"]["value"] == 0.75 and tasks["strongreject"]["refusal_rate"]["value"] == 1
    for task, metrics in tasks.items():
        assert metrics["missing_thinking_rate"] == {"value": None, "low": None, "high": None, "n": 0}
        assert metrics["early_stop_rate"]["value"] == metrics["cap_hit_rate"]["value"] == 0
        rows = list(read_jsonl(tmp_path / "run" / "evaluation" / "base" / f"{task}.jsonl"))
        assert {row["output"] for row in rows} == {SAID} and {row["finish_reason"] for row in rows} == {"stop"}
    assert (tmp_path / "run" / "report.html").exists()


TRAINING = [NONE, "refine=vanilla", "sft.max_steps=1", "probes.every=0"]


def rows(folder: Path, trace: str) -> str:
    write_jsonl(folder / "rows.jsonl", [{"prompt": f"forge {n}", "trace": trace, "answer": SAID} for n in range(4)])
    return f"data.path={folder / 'rows.jsonl'}"


def test_a_trace_is_refused_before_anything_is_generated(start, tmp_path, capsys):
    assert start("train", *TRAINING, rows(tmp_path, "hm")) == BAD_CONFIG
    error = " ".join(capsys.readouterr().err.split())
    assert "local-0" in error and "have a trace, which model.chat_style=none has no place for" in error


def test_a_row_that_spells_out_a_mark_of_ordinary_text_is_refused(start, tmp_path, capsys):
    marks = ["model.chat_style=marks", 'model.think_marks=["help","that"]']
    assert start("train", *TRAINING[1:], *marks, rows(tmp_path, "hm")) == BAD_CONFIG
    assert "examples (local-0" in (error := " ".join(capsys.readouterr().err.split()))
    assert "spell out help or that, which is how this model marks" in error


def test_a_strategy_whose_trace_is_the_model_s_thinking_is_refused(start, tmp_path, capsys):
    assert start("train", *TRAINING, "refine=thinksafe", rows(tmp_path, "")) == BAD_CONFIG
    assert "model.chat_style=none with refine.strategy=thinksafe" in " ".join(capsys.readouterr().err.split())


def test_what_is_trained_without_thinking_is_recorded_and_measured_so(start, tmp_path, capsys):
    assert start("train", *TRAINING, rows(tmp_path, "")) == DONE
    assert json.loads((tmp_path / "run" / "model" / "dgr_chat.json").read_text()) == {"chat_style": "none"}
    again = [f"model.path={tmp_path / 'run' / 'model'}", f"hydra.run.dir={tmp_path / 'again'}"]
    assert start("evaluate", *again) == DONE
    alone, within = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("again", "run"))
    assert alone["base"]["tasks"] == within["tuned"]["tasks"] and "chat style: none" in capsys.readouterr().out
