"""Accuracy under smaller token budgets, from stored outputs."""

import pytest

from dgr_lightning.evaluation.budget import budget_curves
from dgr_lightning.evaluation.subjects import BASE, TUNED, outputs_file
from dgr_lightning.files import write_jsonl


def write(folder, subject, task, outputs):
    """Outputs as (id, tokens, right)."""
    rows = [
        {"id": id_, "sample": sample, "kind": "reasoning", "num_tokens": tokens, "correct": right}
        for sample, (id_, tokens, right) in enumerate(outputs)
    ]
    write_jsonl(outputs_file(folder, subject, task), rows)


def test_an_output_longer_than_the_cap_is_wrong_and_one_that_fits_counts_as_it_did(tmp_path):
    write(tmp_path, BASE, "gsm8k", [("a", 50, True), ("b", 100, True), ("c", 400, True), ("d", 60, False)])
    curve = budget_curves(tmp_path, [BASE], ["gsm8k"])["gsm8k"]
    assert curve.caps == [35, 50, 71, 100, 141, 200, 283, 400]
    assert [one.value for one in curve.accuracy[BASE]] == [0.0, 0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 0.75]
    assert all(one.n == 4 and one.low < one.high for one in curve.accuracy[BASE]) and curve.difference == []


def test_two_models_have_the_same_caps_and_a_paired_difference(tmp_path):
    problems = [str(i) for i in range(40)]
    write(tmp_path, BASE, "gsm8k", [(id_, 100, True) for id_ in problems])
    write(tmp_path, TUNED, "gsm8k", [(id_, 400, True) for id_ in problems])
    curve = budget_curves(tmp_path, [BASE, TUNED], ["gsm8k"])["gsm8k"]
    by_cap = dict(zip(curve.caps, curve.difference, strict=True))
    assert by_cap[100].value == by_cap[283].value == -1.0 and by_cap[100].high < 0
    assert by_cap[400].value == 0.0 and by_cap[400].n == 40


def test_the_headline_is_the_average_over_tasks(tmp_path):
    write(tmp_path, BASE, "gsm8k", [("a", 10, True), ("b", 20, True)])
    write(tmp_path, BASE, "math500", [("c", 20, True), ("d", 20, False)])
    curves = budget_curves(tmp_path, [BASE], ["gsm8k", "math500"])
    last = {name: curve.accuracy[BASE][-1].value for name, curve in curves.items()}
    assert last == {"headline": pytest.approx(0.75), "gsm8k": 1.0, "math500": 0.5}
    assert curves["gsm8k"].caps == curves["math500"].caps
    assert curves["gsm8k"].to_json().keys() == {"caps", "base", "difference"}


def test_a_model_that_is_never_right_and_one_that_writes_nothing_have_a_curve(tmp_path):
    write(tmp_path, BASE, "gsm8k", [("a", 0, False), ("b", 1, False)])
    assert [one.value for one in budget_curves(tmp_path, [BASE], ["gsm8k"])["gsm8k"].accuracy[BASE]] == [0.0]
    assert budget_curves(tmp_path, [BASE], []) == {}
