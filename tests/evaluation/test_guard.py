"""An evaluation that a guard judges: the subject leaves the devices first, every verdict is in the lines, none asked twice."""

import pytest

from dgr_lightning.evaluation.evaluate import evaluate_model
from dgr_lightning.files import read_jsonl
from dgr_lightning.models.conversation import Conversation
from dgr_lightning.scoring import guard
from dgr_lightning.scoring.cached_judge import open_cached_judge
from dgr_lightning.scoring.panel import Panel
from tests.helpers.evaluations import ScriptedEngine, good
from tests.helpers.fake_model import FakeModel
from tests.helpers.guards import GuardEngine, qwen_template, tokenizer


@pytest.fixture
def evaluated(tmp_path, monkeypatch, cfg, chat):
    """Returns a function that evaluates with a guard of a rule; gives the lines of a task and what happened in what order."""
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(guard.Guard, "_folder", tmp_path)
    monkeypatch.setattr(guard.Guard, "_conversation", Conversation(tokenizer("Qwen3", qwen_template())))
    monkeypatch.setattr(guard, "model_hash", lambda folder: "guard")
    cfg.judge.name, cfg.trainer.accelerator = "qwen3guard", "cpu"

    def evaluate(rule, task="strongreject"):
        events = []
        monkeypatch.setattr(
            guard, "open_engine", lambda cfg, folder, chat: events.append("guard starts") or GuardEngine(chat, rule)
        )
        model = FakeModel(ScriptedEngine(chat, good), chat)
        model.release = lambda: events.append("subject released")
        estimates = evaluate_model(model, cfg, Panel.of(cfg, open_cached_judge), tmp_path / "out", tmp_path / "stored")
        return estimates, list(read_jsonl(tmp_path / "out" / f"{task}.jsonl")), events

    return evaluate


def rule(prompt: str) -> str:
    refuses = "ASSISTANT: I cannot" in prompt
    return f"Safety: {'Safe' if refuses else 'Unsafe'}\nCategories: None\nRefusal: {'Yes' if refuses else 'No'}"


def test_the_subject_is_released_before_one_guard_judges_all_tasks(evaluated):
    estimates, rows, events = evaluated(rule)
    assert events == ["subject released", "guard starts"]
    assert estimates["strongreject"]["refusal_rate"].value == 1 and estimates["xstest"]["over_refusal_rate"].value == 0
    said = [one for row in rows for one in row["judged"]]
    assert {(one["judge"], one["part"], one["error"]) for one in said} == {("qwen3guard", "answer", None)}
    assert all(None not in (one["harmful"], one["probability"], one["refused"]) for one in said)
    assert all(row["refused"] for row in rows)


def test_stored_verdicts_start_no_guard(evaluated):
    first = evaluated(rule)
    again = evaluated(lambda prompt: "never")
    assert again[:2] == first[:2] and again[2] == ["subject released"]


def test_what_the_guard_could_not_say_is_neither_a_refusal_nor_none(evaluated):
    estimates, rows, _ = evaluated(lambda prompt: "well")
    assert all(row["refused"] is None and row["judged"][0]["error"] == "unparsable" for row in rows)
    assert "refusal_rate" not in estimates["strongreject"] or estimates["strongreject"]["refusal_rate"].value is None
