"""SDFT: the model's own trace and answer, written with the source as a reference."""

from __future__ import annotations

import pytest

from tests.helpers.scripted import SET, ScriptedEngine, example, outcomes, refined, texts


def test_sdft_keeps_what_the_model_thought_and_answered_with_the_source_as_reference(tmp_path):
    engine = ScriptedEngine(lambda key, prompt: "my thought </think> I cannot, as I say")
    result = refined(tmp_path, engine, [*SET, example(9, trace="")], strategy="sdft")
    assert sorted(engine.keys) == [f"set-{n}/response/0" for n in (0, 1, 2, 3, 9)]
    prompt = engine.prompts["set-1/response/0"]
    assert "Question 1?" in prompt and "old trace 1" in prompt and "I cannot do 1." in prompt
    assert texts(result)["set-1"] == ("my thought", "I cannot, as I say")
    assert texts(result)["set-9"] == ("", "I cannot, as I say"), "an empty trace stays empty"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("my thought </think> gladly", "refusal_lost"),
        ("</think> I cannot", "empty"),
        ("my thought", "empty"),
        ("here is my response </think> I cannot", "meta_thinking"),
        ("t " * 201 + "</think> I cannot", "overthinking"),
        ("one </think> I cannot </think> two", "think_marks"),
    ],
)
def test_sdft_falls_back_where_trace_or_answer_is_at_fault(tmp_path, written, reason):
    result = refined(tmp_path, ScriptedEngine(lambda key, prompt: written), SET[:1], strategy="sdft")
    assert outcomes(result)["set-0"] == (False, reason)
    assert texts(result)["set-0"] == ("old trace 0", "I cannot do 0.")
