"""ThinkSafe: steering on harmful prompts alone, and the guard."""

from __future__ import annotations

import pytest

from dgr_lightning.errors import UserError
from tests.helpers.scripted import SET, ScriptedEngine, example, refined, texts

GUARDED = {"strategy": "thinksafe", "on_failure": "drop", "checks": ["unfinished", "empty", "think_marks", "guard"]}


def test_thinksafe_steers_harmful_prompts_alone_and_drops_what_the_guard_rejects(tmp_path):
    """It never sees the source's trace and answer, and an empty trace there does not matter."""
    examples = [example(0), example(1, label="benign"), example(2, trace=""), example(3, label="benign"), example(4)]
    answers = {"set-3/response/0": "hm </think> I cannot", "set-4/response/0": "hm </think> gladly"}
    engine = ScriptedEngine(
        lambda key, prompt: answers.get(key) or ("no </think> I cannot" if "harmful" in prompt else "well </think> gladly")
    )
    result = refined(tmp_path, engine, examples, **GUARDED)
    assert engine.prompts["set-1/response/0"] == "user: Question 1? <think>"
    steered = engine.prompts["set-0/response/0"]
    assert "You should refuse to answer the prompt." in steered and "old trace" not in steered and "I cannot" not in steered
    assert texts(result) == {"set-0": ("no", "I cannot"), "set-1": ("well", "gladly"), "set-2": ("no", "I cannot")}
    assert result.stats.fallback == {"guard": 2}
    assert next(iter(result.examples)).prompt == "Question 0?", "trained on the plain prompt"


def test_a_label_that_changes_is_another_prompt_for_thinksafe(tmp_path):
    engine = ScriptedEngine(lambda key, prompt: "no </think> I cannot")
    refined(tmp_path, engine, SET[:1], **GUARDED)
    with pytest.raises(UserError, match="left none"):
        refined(tmp_path, engine, [example(0, label="benign")], **GUARDED)
    assert len(engine.keys) == 2


def test_retention_rows_are_neither_steered_nor_refused(tmp_path):
    examples = [example(0), example(1, label="retention"), example(2, label="retention")]
    answers = {"set-1/response/0": "one </think> gladly", "set-2/response/0": "two </think> I cannot"}
    engine = ScriptedEngine(lambda key, prompt: answers.get(key, "no </think> I cannot"))
    result = refined(tmp_path, engine, examples, **GUARDED)
    assert engine.prompts["set-1/response/0"] == "user: Question 1? <think>"
    assert [row.label for row in result.examples] == ["harmful", "retention"] and result.stats.fallback == {"guard": 1}
