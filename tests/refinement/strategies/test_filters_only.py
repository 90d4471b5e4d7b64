"""Filters-only: the source set judged, nothing generated."""

from __future__ import annotations

from tests.helpers.scripted import SET, ScriptedEngine, example, good, refined


def test_filters_only_judges_the_source_and_generates_nothing(tmp_path):
    engine = ScriptedEngine(good)
    examples = [*SET, example(8, trace="Let me rephrase this in my own words."), example(9, trace="")]
    result = refined(tmp_path, engine, examples, strategy="filters-only", on_failure="drop")
    assert engine.built == 0
    assert [row.id for row in result.examples] == ["set-0", "set-1", "set-2", "set-3", "set-9"]
    assert result.stats.fallback == {"meta_thinking": 1} and result.stats.refined == 0
    (row,) = result.verdicts()
    assert (row["id"], row["part"], row["text"]) == ("set-8", "source", None) and row["checks"]["meta_thinking"]
