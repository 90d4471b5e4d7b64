"""Vanilla: the set as it is."""

from __future__ import annotations

from tests.helpers.scripted import SET, ScriptedEngine, good, outcomes, refined, texts


def test_vanilla_passes_the_set_through_without_engine_or_store(tmp_path, screen):
    engine = ScriptedEngine(good)
    result = refined(tmp_path, engine, strategy="vanilla")
    assert engine.built == 0 and not list(tmp_path.iterdir())
    assert texts(result) == {row.id: (row.trace, row.answer) for row in SET}
    assert set(outcomes(result).values()) == {(False, None)}
    assert result.stats.refined == 0 and result.stats.fallback == {}
    assert result.stats.tokens_before == result.stats.tokens_after
    assert screen.getvalue() == ""
