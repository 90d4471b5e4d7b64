"""Differences of a run's two models, paired on problems, from the outputs on disk."""

import pytest

from dgr_lightning.evaluation.differences import cap_hit_warnings, differences, mean_difference
from dgr_lightning.evaluation.subjects import BASE, TUNED, outputs_file, outputs_folder
from dgr_lightning.files import read_jsonl, write_jsonl
from dgr_lightning.statistics.intervals import difference
from dgr_lightning.tasks.metrics import KINDS
from tests.helpers.evaluations import TASKS, good, run_evaluation

KIND_OF = dict(zip(TASKS, KINDS.values(), strict=True))


def refuses_all(prompt, sample):
    return "so </think> I cannot help with that .", "stop"


def cut_off(prompt, sample):
    return ("so it so it", "length") if "plus" in prompt else good(prompt, sample)


def both(chat, cfg, folder, tuned):
    before, _ = run_evaluation(good, chat, cfg, folder, out_dir=outputs_folder(folder, BASE))
    after, _ = run_evaluation(tuned, chat, cfg, folder, out_dir=outputs_folder(folder, TUNED), model_hash="tuned")
    return before, after


def test_every_task_and_kind_has_its_difference(chat, cfg, tmp_path):
    before, after = both(chat, cfg, tmp_path, refuses_all)
    found = differences(tmp_path, KIND_OF, chat)
    assert {name: one.value for name, one in found.headline.items()} == {
        "reasoning_accuracy": -1.0,
        "refusal_rate": 0.0,
        "over_refusal_rate": 1.0,
    }
    assert found.tasks["gsm8k"]["refused_reasoning_rate"].value == 1.0
    assert found.tasks["gsm8k"]["accuracy"].n == 20 and found.tasks["gsm8k"]["mean_tokens"].n == 20
    for task, kind in KIND_OF.items():
        one = found.tasks[task][kind.metric]
        assert one == found.headline[kind.headline]  # one task a kind
        assert one.value == difference(before[task][kind.metric], after[task][kind.metric]).value
    assert cap_hit_warnings(found, before, after) == []


def test_models_that_run_into_the_budget_unequally_make_a_warning(chat, cfg, tmp_path):
    before, after = both(chat, cfg, tmp_path, cut_off)
    (warning,) = cap_hit_warnings(differences(tmp_path, KIND_OF, chat), before, after)
    assert warning.startswith("gsm8k: 0.0 % of the base's outputs and 100.0 % of the tuned model's")
    assert "evaluation.max_new_tokens" in warning


@pytest.mark.parametrize(("task", "headline"), [("gsm8k", "reasoning_accuracy"), ("xstest", "over_refusal_rate")])
def test_verdicts_of_different_graders_or_judges_are_not_paired(chat, cfg, tmp_path, task, headline):
    both(chat, cfg, tmp_path, good)
    path = outputs_file(tmp_path, TUNED, task)
    other = {"grader": "maths@0"} if task == "gsm8k" else {"judged": [{"judge": "guard", "part": "answer", "refused": False}]}
    write_jsonl(path, [row | other for row in list(read_jsonl(path))])
    found = differences(tmp_path, KIND_OF, chat)
    assert headline not in found.headline and KIND_OF[task].metric not in found.tasks[task]
    assert found.tasks[task]["cap_hit_rate"].value == 0 and len(found.headline) == 2


def test_problems_that_one_model_lacks_do_not_count(chat, cfg, tmp_path):
    both(chat, cfg, tmp_path, refuses_all)
    path = outputs_file(tmp_path, TUNED, "gsm8k")
    write_jsonl(path, list(read_jsonl(path))[:7])
    assert differences(tmp_path, KIND_OF, chat).tasks["gsm8k"]["accuracy"].n == 7


def test_a_difference_of_means_is_over_problems():
    found = mean_difference({"a": [1, 3], "b": [5], "c": [9]}, {"a": [4], "b": [6, 8], "d": [0]})
    assert (found.value, found.n) == (2.0, 2)
