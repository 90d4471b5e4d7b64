"""Which outputs of two models are set against each other, and the difference of their rates."""

import pytest

from dgr_lightning.evaluation.pairing import PairedTask, capped_difference, changes, difference, pair_task, read_outcomes


def rows(verdicts, *, kind="reasoning", prompt="p", grader="maths@1", finish_reason="stop"):
    """Lines of a task: problem → verdicts of its samples."""
    field = "correct" if kind == "reasoning" else "refused"
    return [
        {"id": id_, "sample": i, "kind": kind, "prompt": f"{prompt} {id_}", "num_tokens": 5, "finish_reason": finish_reason}
        | ({"gold": "1", "grader": grader} if kind == "reasoning" else {})
        | {field: verdict}
        for id_, samples in verdicts.items()
        for i, verdict in enumerate(samples)
    ]


def outcomes(*arguments, judge="keywords", **changes):
    found = read_outcomes(rows(*arguments, **changes), {"refusal_rate": judge, "harm_rate": judge, "trace_harm_rate": judge})
    assert found is not None
    return found


def the_pair(a, b) -> PairedTask:
    (paired,), left_out = pair_task(a, b)
    assert not left_out
    return paired


def why_not(a, b) -> str:
    paired, (why,) = pair_task(a, b)
    assert not paired
    return why


def test_a_task_without_an_output_has_no_outcomes():
    assert read_outcomes([], {}) is None


def test_only_problems_that_both_have_are_paired():
    paired = the_pair(outcomes({"a": [True], "b": [True], "c": [False]}), outcomes({"b": [False], "c": [False], "d": [True]}))
    assert (paired.a, paired.b) == ({"b": [True], "c": [False]}, {"b": [False], "c": [False]})
    assert (paired.num_unpaired, paired.num_other_prompts) == (2, 0)
    estimate, p = difference([paired])
    assert (estimate.value, estimate.n) == (-0.5, 2) and p is not None
    assert changes(paired) == (0, 1)


def test_the_same_id_with_another_prompt_is_another_problem():
    here, there = outcomes({"a": [True], "b": [True]}), outcomes({"a": [True], "b": [False]})
    there.prompts["b"] = "another"
    paired = the_pair(here, there)
    assert list(paired.a) == ["a"] and paired.num_other_prompts == 1
    assert "prompts of all 2 common problems differ" in why_not(here, outcomes({"a": [True], "b": [True]}, prompt="q"))


def test_rates_of_different_judges_are_never_paired_and_both_are_named():
    sides = [outcomes({"a": [True]}, kind="harmful", judge=judge) for judge in ("keywords", "qwen3guard")]
    why = why_not(*sides)
    assert why == "judged by keywords and by qwen3guard: rates of different judges mean different things"


def test_grades_of_different_versions_of_a_grader_are_not_paired():
    why = why_not(outcomes({"a": [True]}), outcomes({"a": [True]}, grader="maths@2"))
    assert why.startswith("graded by maths@1 and by maths@2; the same commands again grade")


def test_the_judge_of_a_task_that_is_graded_does_not_matter():
    assert the_pair(outcomes({"a": [True]}), outcomes({"a": [True]}, judge="other")).judge is None


def test_an_output_that_no_judge_could_tell_is_left_out_of_the_rates_and_not_of_the_cap_hits():
    here = outcomes({"a": [True], "b": [None]}, kind="harmful")
    there = outcomes({"a": [False], "b": [True]}, kind="harmful", finish_reason="length")
    paired = the_pair(here, there)
    assert list(paired.a) == ["a"] and paired.judge == "keywords"
    assert capped_difference(here, there).value == 1.0
    assert here.mean_tokens == 5 and there.cap_hit_rate.value == 1.0
    assert why_not(here, outcomes({"b": [True]}, kind="harmful")) == "no problem has a verdict in both"


def test_a_headline_weighs_its_tasks_equally_whatever_their_sizes():
    large = the_pair(outcomes({str(i): [False] for i in range(30)}), outcomes({str(i): [True] for i in range(30)}))
    small = the_pair(outcomes({"a": [True], "b": [True]}), outcomes({"a": [True], "b": [True]}))
    estimate, p = difference([large, small])
    assert estimate.value == pytest.approx(0.5) and estimate.n == 32 and p < 0.01


def test_several_samples_of_a_problem_are_averaged_before_they_are_compared():
    paired = the_pair(outcomes({"a": [True, False]}), outcomes({"a": [True, True, True, False]}))
    assert difference([paired])[0].value == pytest.approx(0.25) and changes(paired) == (1, 0)


def judged(verdicts, judge="guard", part="answer"):
    """Lines of a harmful task that a guard has judged: it says what is harmful, and nothing of refusals."""
    lines = rows({id_: [None] for id_ in verdicts}, kind="harmful")
    said = {"judge": judge, "part": part, "refused": None, "probability": None}
    for line, verdict in zip(lines, verdicts.values(), strict=True):
        error = verdict if isinstance(verdict, str) else None
        line["judged"] = [said | {"harmful": None if error else verdict, "error": error}]
    return lines


def guarded(verdicts, **changes):
    judges = dict.fromkeys(("harm_rate", "trace_harm_rate"), changes.get("judge", "guard"))
    found = read_outcomes(judged(verdicts, **changes), judges)
    assert found is not None
    return found


def test_a_guard_that_says_nothing_of_refusals_is_compared_by_harm_alone():
    paired = the_pair(guarded({"a": True, "b": True}), guarded({"a": False, "b": True}))
    assert (paired.measure.metric, paired.measure.headline, paired.judge) == ("harm_rate", "harm_rate", "guard")
    assert difference([paired])[0].value == -0.5


def test_harm_in_traces_is_a_rate_of_its_own():
    paired = the_pair(guarded({"a": True}, part="trace"), guarded({"a": False}, part="trace"))
    assert paired.measure.metric == "trace_harm_rate"


def test_a_part_that_an_output_has_not_is_not_harmful_and_a_failed_verdict_is_left_out():
    found = guarded({"a": "no_text", "b": "unparsable", "c": True})
    assert found.verdicts == {"harm_rate": {"a": [False], "c": [True]}}


def test_harm_by_different_guards_is_left_out_and_named_by_its_metric():
    why = why_not(guarded({"a": True}), guarded({"a": True}, judge="another"))
    assert why.startswith("harm_rate: judged by guard and by another")
