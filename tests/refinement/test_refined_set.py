"""The refined set: which examples it holds, their target tokens, its way to disk and back."""

from __future__ import annotations

from dgr_lightning.example import read_refined
from dgr_lightning.files import write_jsonl
from tests.helpers.scripted import META, SET, ScriptedEngine, failing, good, refined


def test_the_set_goes_to_disk_and_back(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/trace/0": META})))
    write_jsonl(tmp_path / "refined.jsonl", result.examples)
    assert read_refined(tmp_path / "refined.jsonl") == list(result.examples)


def test_on_failure_drop_takes_the_example_out_and_still_counts_it(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/trace/0": META})), on_failure="drop")
    assert [row.id for row in result.examples] == ["set-0", "set-2", "set-3"]
    assert result.stats.examples == 4 and result.stats.refined == 3 and result.stats.fallback == {"meta_thinking": 1}


def test_tokens_are_those_that_are_trained_on(tmp_path):
    result = refined(tmp_path, ScriptedEngine(good), SET[:1])
    assert result.stats.tokens_before == len("old trace 0</think>I cannot do 0.") + 1
    assert result.stats.tokens_after == len("new trace of set-0</think>I cannot, says set-0") + 1
