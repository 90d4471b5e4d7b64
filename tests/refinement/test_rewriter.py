"""The verdicts of a refinement, a line for each."""

from __future__ import annotations

from dgr_lightning.config import RefineConfig
from tests.helpers.scripted import META, SET, ScriptedEngine, failing, refined


def test_every_verdict_is_returned_with_the_text_that_failed(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/trace/0": META})), SET[:2], tries=2)
    found = {
        (row["id"], row["part"], row["attempt"]): ([name for name, failed in row["checks"].items() if failed], row["text"])
        for row in result.verdicts()
    }
    assert found == {
        ("set-0", "trace", 0): ([], None),
        ("set-0", "answer", 0): ([], None),
        ("set-1", "trace", 0): (["meta_thinking"], "in my own words : no"),
        ("set-1", "trace", 1): ([], None),
        ("set-1", "answer", 0): ([], None),
    }
    row = next(result.verdicts())
    assert list(row["checks"]) == RefineConfig().checks and row["num_tokens"] == len("new trace of set-0")
