"""One example's way through the steps: what is sampled, what is accepted, what falls back."""

from __future__ import annotations

import pytest

from dgr_lightning.engines.engine import Sampling
from tests.helpers.scripted import (
    END,
    FAULTS,
    META,
    SET,
    ScriptedEngine,
    failing,
    good,
    outcomes,
    refined,
    texts,
    whole,
)


def test_without_thinking_the_think_block_is_prefilled_and_all_of_the_text_is_kept(tmp_path):
    engine = ScriptedEngine(lambda key, prompt: good(key, prompt).partition("</think>")[2])
    result = refined(tmp_path, engine, thinking=False)
    assert all(prompt.endswith("<think></think>") for prompt in engine.prompts.values())
    assert texts(result)["set-0"] == ("new trace of set-0", "I cannot, says set-0")


def test_sampling_is_the_configs_and_the_noise_key_names_id_part_and_try(tmp_path):
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, seed=7, temperature=0.3, top_p=0.8, max_new_tokens=99)
    assert set(engine.samplings) == {Sampling(0.3, 0.8, 99, 7, (END,))}
    assert sorted(engine.keys) == sorted(f"set-{number}/{part}/0" for number in range(4) for part in ("trace", "answer"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_trace_falls_back_to_the_whole_original(tmp_path, fault):
    engine = ScriptedEngine(failing({"set-1/trace/0": FAULTS[fault]}))
    result = refined(tmp_path, engine)
    assert texts(result)["set-1"] == ("old trace 1", "I cannot do 1.") and outcomes(result)["set-1"] == (False, fault)
    assert result.stats.fallback == {fault: 1} and result.stats.refined == 3
    assert "set-1/answer/0" not in engine.keys, "an answer was generated for an example that had already fallen back"


def test_a_faulty_answer_takes_the_trace_back_with_it(tmp_path):
    result = refined(tmp_path, ScriptedEngine(failing({"set-1/answer/0": "fine </think> Here you are."})))
    assert texts(result)["set-1"] == ("old trace 1", "I cannot do 1.") and outcomes(result)["set-1"] == (False, "refusal_lost")


def test_fallback_unit_part_keeps_the_part_that_is_good(tmp_path):
    engine = ScriptedEngine(failing({"set-1/trace/0": META, "set-2/answer/0": META}))
    result = refined(tmp_path, engine, fallback_unit="part")
    assert texts(result)["set-1"] == ("old trace 1", "I cannot, says set-1") and outcomes(result)["set-1"] == (
        True,
        "meta_thinking",
    )
    assert texts(result)["set-2"] == ("new trace of set-2", "I cannot do 2.") and outcomes(result)["set-2"] == (
        True,
        "meta_thinking",
    )
    assert "old trace 1" in engine.prompts["set-1/answer/0"], "the answer is to go with the trace that is kept"
    assert result.stats.refined == 4 and result.stats.fallback == {"meta_thinking": 2}


def test_further_tries_are_drawn_only_for_what_failed_and_end_the_failure(tmp_path):
    engine = ScriptedEngine(failing({"set-1/trace/0": META, "set-2/trace/0": META, "set-2/trace/1": FAULTS["unfinished"]}))
    result = refined(tmp_path, engine, tries=2)
    assert sorted(key for key in engine.keys if "/trace/" in key and not key.endswith("/0")) == [
        "set-1/trace/1",
        "set-2/trace/1",
    ]
    assert outcomes(result)["set-1"] == (True, None) and outcomes(result)["set-2"] == (False, "unfinished")


def test_best_of_n_keeps_the_likeliest_of_those_that_pass(tmp_path):
    def script(key: str, prompt: str) -> str:
        _, part, attempt = key.rsplit("/", 2)
        likes = {"0": "like", "1": "like like", "2": "like like like in my own words", "3": ""}[attempt]
        return f"so </think> {'new trace' if part == 'trace' else 'I cannot'} {likes} {attempt}"

    engine = ScriptedEngine(script)
    result = refined(tmp_path, engine, tries=4, select="nll")
    assert texts(result)["set-2"] == ("new trace like like 1", "I cannot like like 1")
    assert len(engine.keys) == 4 * 2 * 4, "all tries of both parts"
    assert "new trace like like 1" in engine.prompts["set-2/answer/3"]
    assert len(engine.scored) == 4 * 2 * 3, "what fails a check is not scored"
    prompt, target = engine.scored[0]
    assert "".join(map(chr, prompt)).startswith("user: Question") and "new trace" in "".join(map(chr, target))
    again = ScriptedEngine(script)
    assert whole(refined(tmp_path, again, tries=4, select="nll")) == whole(result)
    assert again.built == 0, "neither generated nor scored again"
    nlls = [row["nll"] for row in result.verdicts() if row["id"] == "set-2" and row["part"] == "trace"]
    assert nlls == [0.5, pytest.approx(1 / 3), None, 1.0]


def test_a_trace_that_is_judged_otherwise_never_meets_an_answer_made_for_another(tmp_path):
    """With the check off, the trace of try 0 is accepted and the answer was made for it; with it on, that of try 1 is."""
    script = failing({"set-0/trace/0": META})
    refined(tmp_path, ScriptedEngine(script), SET[:1], tries=2, checks=["empty"])
    engine = ScriptedEngine(script)
    result = refined(tmp_path, engine, SET[:1], tries=2)
    assert engine.keys == ["set-0/trace/1", "set-0/answer/0"]
    assert "new trace of set-0" in engine.prompts["set-0/answer/0"]
    assert texts(result)["set-0"] == ("new trace of set-0", "I cannot, says set-0")


def test_the_likelihood_of_an_answer_is_taken_given_the_trace_that_was_chosen(tmp_path):
    """With more tries another trace wins, and answers are scored again, though what they were asked has not changed."""

    def script(key: str, prompt: str) -> str:
        _, part, attempt = key.rsplit("/", 2)
        return f"so </think> {'new trace ' + 'like ' * int(attempt) if part == 'trace' else 'I cannot'} {attempt}"

    for tries in (2, 3):
        engine = ScriptedEngine(script)
        refined(tmp_path, engine, SET[:1], tries=tries, select="nll", view="part")
    given = ["".join(map(chr, prompt)) for prompt, target in engine.scored if "cannot" in "".join(map(chr, target))]
    assert len(given) == 3 and all("trace like like" in prompt for prompt in given)
