"""What stands beside the metric of a task: tokens, finished outputs, the grader's classes, several samples."""

import pytest

from dgr_lightning.evaluation.estimates import estimate
from dgr_lightning.evaluation.outcomes import outcomes_of


def line(id_, correct, *, sample=0, answer="4", tokens=10, reason="stop", outcome=None, boxed=True, final="4"):
    return {
        "id": id_,
        "sample": sample,
        "kind": "reasoning",
        "prompt": "how much is it ?",
        "output": f"so it </think> {answer}",
        "num_tokens": tokens,
        "finish_reason": reason,
        "correct": correct,
        "outcome": outcome or ("right" if correct else "wrong"),
        "boxed": boxed,
        "final": final,
        "grader": "maths@2",
    }


def values(rows, chat):
    return {metric: one.value for metric, one in estimate(rows, chat).items()}


def test_tokens_are_a_mean_and_no_rate(chat):
    found = estimate([line("a", True, tokens=100), line("b", False, tokens=300)], chat)["mean_tokens"]
    assert (found.value, found.n) == (200, 2) and found.low >= 0


def test_accuracy_of_finished_leaves_out_what_was_cut_off(chat):
    rows = [line("a", True), line("b", False), line("c", False, reason="length", boxed=None, final=None, outcome="no_answer")]
    found = estimate(rows, chat)
    assert found["accuracy"].value == pytest.approx(1 / 3) and found["accuracy_of_finished"].value == 0.5
    assert found["accuracy_of_finished"].n == 2
    cut = estimate(rows[2:], chat)["accuracy_of_finished"]
    assert (cut.value, cut.n) == (None, 0)


@pytest.mark.parametrize(
    ("outcome", "boxed", "final", "counted"),
    [
        ("right", True, "4", set()),
        ("wrong", True, "5", set()),
        ("right", False, "4", {"unboxed_rate"}),
        ("wrong", False, "5", {"unboxed_rate"}),
        ("wrong", None, None, {"unboxed_rate"}),  # an answer in which nothing final was found
        ("unparsable", True, "?", {"unparsable_rate"}),
        ("timeout", None, None, {"timeout_rate"}),
        ("no_answer", None, None, set()),  # cut off or stopped early: counted there
    ],
)
def test_the_graders_classes_are_counted_apart(chat, outcome, boxed, final, counted):
    row = line("a", outcome == "right", outcome=outcome, boxed=boxed, final=final)
    found = values([row], chat)
    assert {metric for metric in ("unboxed_rate", "unparsable_rate", "timeout_rate") if found[metric]} == counted


def test_refusing_to_reason_is_counted(chat):
    rows = [line("a", False, answer="I cannot help with that ."), line("b", True)]
    assert values(rows, chat)["refused_reasoning_rate"] == 0.5


def test_lines_of_an_earlier_version_have_no_classes(chat):
    row = {name: value for name, value in line("a", True).items() if name not in ("outcome", "boxed", "final", "grader")}
    assert "unboxed_rate" not in estimate([row], chat) and values([row], chat)["accuracy"] == 1


def test_several_samples_have_pass_and_majority(chat):
    rows = [line("a", right, sample=i, final="4" if right else "5") for i, right in enumerate([True, False, False, True])]
    rows += [line("b", right, sample=i, final="4" if right else str(i)) for i, right in enumerate([True, False, False, False])]
    found = estimate(rows, chat)
    assert {"pass@2", "pass@4", "maj@2", "maj@4"} == {metric for metric in found if "@" in metric}
    assert found["pass@4"].value == 1 and found["pass@2"].value == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert found["maj@4"].value == pytest.approx((1 / 2 + 1 / 4) / 2) and found["maj@4"].n == 2
    assert found["pass@4"].low < 1
    assert not any("@" in metric for metric in estimate([line("a", True)], chat))


def test_what_nobody_could_judge_is_left_out(chat):
    row = {"id": "p", "kind": "harmful", "prompt": "p", "output": "so it </think> sure", "finish_reason": "stop"}
    row |= {"num_tokens": 3, "refused": None, "judged": {"guard": {"answer": {"error": "unparsable"}}}}
    assert "refusal_rate" not in outcomes_of([row], chat)
