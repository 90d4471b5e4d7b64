"""DGR's steps: what the model is shown of an example, and which part is rewritten."""

from __future__ import annotations

from tests.helpers.scripted import SET, ScriptedEngine, example, good, outcomes, refined, texts


def test_dgr_rewrites_trace_and_answer_of_every_example_in_source_order(tmp_path):
    result = refined(tmp_path, ScriptedEngine(good), [example(1, label="benign"), *SET[2:], SET[0]])
    assert [row.id for row in result.examples] == ["set-1", "set-2", "set-3", "set-0"]
    assert texts(result)["set-1"] == ("new trace of set-1", "I cannot, says set-1")
    assert set(outcomes(result).values()) == {(True, None)}
    first = next(iter(result.examples))
    assert first.label == "benign" and first.prompt == "Question 1?"


def test_the_trace_template_sees_the_question_and_the_answer_template_the_new_trace(tmp_path):
    engine = ScriptedEngine(good)
    refined(tmp_path, engine)
    trace, answer = engine.prompts["set-2/trace/0"], engine.prompts["set-2/answer/0"]
    assert "Question 2?" in trace and "old trace 2" in trace and "I cannot" not in trace
    assert "Question 2?" in answer and "new trace of set-2" in answer and "I cannot do 2." in answer
    assert "old trace" not in answer and trace.endswith("<think>")


def test_view_part_shows_the_part_alone(tmp_path):
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, view="part")
    assert "Question 2?" not in "".join(engine.prompts.values())
    assert "old trace 2" in engine.prompts["set-2/trace/0"]
    assert "trace" not in engine.prompts["set-2/answer/0"] and "I cannot do 2." in engine.prompts["set-2/answer/0"]


def test_an_empty_trace_stays_empty_and_the_answer_alone_is_rewritten(tmp_path):
    engine = ScriptedEngine(good)
    result = refined(tmp_path, engine, [example(1, trace="")])
    assert engine.keys == ["set-1/answer/0"]
    assert texts(result) == {"set-1": ("", "I cannot, says set-1")} and outcomes(result) == {"set-1": (True, None)}


def test_trace_only_and_answer_only_leave_the_other_part_alone(tmp_path):
    engine = ScriptedEngine(good)
    trace_only = refined(tmp_path, engine, parts=["trace"])
    assert texts(trace_only)["set-1"] == ("new trace of set-1", "I cannot do 1.")
    answer_only = refined(tmp_path, engine, parts=["answer"])
    assert texts(answer_only)["set-1"] == ("old trace 1", "I cannot, says set-1")
    assert "old trace 1" in engine.prompts["set-1/answer/0"]
    assert {row.refined for row in [*trace_only.examples, *answer_only.examples]} == {True}
