"""Finished runs set against each other: what is paired, what is left out, what is written."""

import json
from pathlib import Path

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.experiments.comparison import compare, default_folder
from dgr_lightning.experiments.finished_evaluations import find_runs, names
from dgr_lightning.files import write_json, write_text
from tests.helpers.compared_runs import HALF, write_run, write_training

RIGHT, WRONG = [True] * 40, [False] * 40
WHOLE = {"gsm8k": HALF, "math500": RIGHT, "strongreject": WRONG, "xstest": WRONG}
SAFER = {"gsm8k": RIGHT, "math500": RIGHT, "strongreject": RIGHT, "xstest": WRONG}


@pytest.fixture
def two(tmp_path) -> list[str]:
    first = write_training(tmp_path / "vanilla", WHOLE, WHOLE, refine__name="vanilla")
    return [str(first), str(write_training(tmp_path / "dgr", WHOLE, SAFER))]


def test_comparison_json_has_the_pairs_of_the_tuned_models_and_nothing_else(two, tmp_path):
    found = compare(two, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(written) == ["pairs"]
    assert all(set(pair) == {"a", "b", "task", "metric", "judge", "difference"} for pair in written["pairs"])
    assert {(pair["a"], pair["b"]) for pair in written["pairs"]} == {tuple(two)}
    by_task = {(pair["task"], pair["metric"]): pair for pair in written["pairs"]}
    assert list(by_task) == [
        ("headline", "reasoning_accuracy"),
        ("gsm8k", "accuracy"),
        ("math500", "accuracy"),
        ("headline", "refusal_rate"),
        ("strongreject", "refusal_rate"),
        ("headline", "over_refusal_rate"),
        ("xstest", "over_refusal_rate"),
    ]
    gsm8k = by_task["gsm8k", "accuracy"]
    assert gsm8k["judge"] is None and set(gsm8k["difference"]) == {"value", "low", "high", "n"}
    assert gsm8k["difference"]["value"] == 0.5 and gsm8k["difference"]["n"] == 40
    assert by_task["headline", "reasoning_accuracy"]["difference"]["value"] == 0.25
    assert by_task["strongreject", "refusal_rate"]["judge"] == "keywords"
    assert [model.tax.value for model in found.models] == [1.0, 1.0]


def test_details_hold_what_the_pairs_have_no_place_for(two, tmp_path):
    compare(two, tmp_path / "out")
    details = json.loads((tmp_path / "out" / "details.json").read_text())
    gsm8k = next(one for one in details["differences"] if one["task"] == "gsm8k")
    assert (gsm8k["up"], gsm8k["down"]) == (20, 0) and gsm8k["p"] <= gsm8k["p_adjusted"] < 0.05
    assert [model["name"] for model in details["models"]] == ["some-model · vanilla", "some-model · dgr"]
    assert details["models"][1]["facts"]["refinement"] == "dgr"


def test_p_values_are_adjusted_for_all_that_is_shown_and_the_headline_of_one_task_is_no_second_test(two, tmp_path):
    differences = {(one.task, one.measure.kind.name): one for one in compare(two, tmp_path / "out").differences}
    # Five tests: two reasoning tasks and their mean, one harmful task, one benign task.
    refusal = differences["strongreject", "harmful"]
    assert refusal.adjusted == differences["headline", "harmful"].adjusted == pytest.approx(5 * refusal.p)
    assert refusal.is_significant and refusal.tone == "better"
    assert differences["xstest", "benign"].adjusted == 1.0 and differences["xstest", "benign"].tone == "same"


def test_figures_lie_beside_the_page(two, tmp_path):
    compare(two, tmp_path / "out")
    files = sorted(file.name for file in (tmp_path / "out" / "figures").iterdir())
    assert files == ["accuracy.svg", "difference-A-B.svg", "over_refusal_rate.svg", "refusal_rate.svg"]


def test_tasks_that_a_run_has_not_are_left_out_and_named(tmp_path):
    runs = [write_run(tmp_path / "a", WHOLE), write_run(tmp_path / "b", {"gsm8k": RIGHT, "xstest": WRONG})]
    found = compare(list(map(str, runs)), tmp_path / "out")
    assert {one.task for one in found.differences} == {"headline", "gsm8k", "xstest"}
    assert found.models[0].headline["accuracy"].value == 0.5  # of gsm8k alone, as math500 is not common
    (warning,) = found.warnings
    assert warning == (
        "Not in the headlines, because not every model was measured on it: math500 (not measured: B); "
        "strongreject (not measured: B)."
    )


def test_rates_of_different_judges_are_skipped_and_named_and_graded_tasks_are_compared_all_the_same(tmp_path):
    runs = [write_run(tmp_path / "a", WHOLE), write_run(tmp_path / "b", SAFER, judge__name="other.module:Judge")]
    found = compare(list(map(str, runs)), tmp_path / "out")
    assert {one.task for one in found.differences} == {"headline", "gsm8k", "math500"}
    assert {(one.task, one.why) for one in found.skipped} == {
        (task, "judged by keywords and by other.module:Judge: rates of different judges mean different things")
        for task in ("strongreject", "xstest")
    }


def test_other_budgets_are_a_warning_and_other_prompts_are_not_paired(tmp_path):
    runs = [write_run(tmp_path / "a", WHOLE, evaluation__max_new_tokens=100, evaluation__temperature=0.0)]
    runs += [write_run(tmp_path / "b", SAFER, evaluation__max_new_tokens=200, capped=True)]
    found = compare(list(map(str, runs)), tmp_path / "out")
    assert (
        "A and B were not measured alike: evaluation.temperature is 0.0 and 0.6; evaluation.max_new_tokens is 100 and 200."
        in (found.warnings)
    )
    capped = "gsm8k: 0.0 % of the outputs of A and 100.0 % of those of B ran into the token budget; part of their difference"
    assert any(warning.startswith(capped) for warning in found.warnings)
    runs[1] = write_run(tmp_path / "c", SAFER, prompt="another prompt")
    with pytest.raises(UserError, match=r"Nothing to compare: .*gsm8k: the prompts of all 40 common problems differ"):
        compare(list(map(str, runs)), tmp_path / "out")


def test_trainings_of_different_models_are_compared_with_a_warning(two, tmp_path):
    write_json(Path(two[1]) / ".run.json", {"hash": "0" * 12, "model": "another", "described": {}})
    (warning,) = compare(two, tmp_path / "out").warnings
    assert warning == "A and B were trained from different models: their difference is not that of the training alone."


def test_three_runs_make_three_pairs(two, tmp_path):
    third = str(write_run(tmp_path / "base", WHOLE))
    found = compare([*two, third], tmp_path / "out")
    assert list(found.pairs()) == [("A", "B"), ("A", "C"), ("B", "C")]


def test_models_have_different_names_whatever_their_configs(tmp_path):
    same = [write_training(tmp_path / name, WHOLE, WHOLE) for name in ("run-aaaaaa", "run-bbbbbb")]
    other = write_training(tmp_path / "run-c", WHOLE, WHOLE, seed=2)
    found = names(find_runs(list(map(str, [*same, other]))))
    assert found == ["some-model · dgr · seed 1 · aaaaaa", "some-model · dgr · seed 1 · bbbbbb", "some-model · dgr · seed 2"]


def test_an_evaluation_of_a_trained_model_is_called_by_its_training(tmp_path):
    trained = write_training(tmp_path / "run", WHOLE, WHOLE, refine__name="vanilla")
    (trained / "model").mkdir()
    write_json(trained / "stages" / "train.json", {})
    measured = write_run(tmp_path / "measured", WHOLE, model__name="local", model__path=str(trained / "model"))
    folder = write_run(tmp_path / "other", WHOLE, model__name="local", model__path=str(tmp_path / "my-folder"))
    hub = write_run(tmp_path / "hub", WHOLE, model__name="local", model__hub_id="Qwen/Qwen3-0.6B")
    found = names(find_runs(list(map(str, [measured, folder, hub]))))
    assert found == ["some-model · vanilla", "my-folder", "Qwen/Qwen3-0.6B"]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: None, "there is no such directory"),
        (lambda path: write_text(path, ""), "a file. Name the run directory"),
        (lambda path: path.mkdir(), "no finished run: there is no summary.json"),
        (lambda path: write_json(path / ".run.json", {}), "a run that has not finished. Run its command again"),
        (lambda path: write_json(path / "config.json", {}), "a model, not a run. evaluate.py measures models"),
        (lambda path: write_run(path / "one", WHOLE), "a folder of runs, no run. Name the runs: "),
        (lambda path: (write_run(path, WHOLE) / "config.yaml").unlink(), "its config.yaml cannot be read"),
        (
            lambda path: (write_training(path, WHOLE, WHOLE) / "stages" / "measured.json").unlink(),
            "its models are being measured anew, or that was interrupted",
        ),
    ],
)
def test_a_directory_that_is_no_finished_run_is_refused_with_what_to_name(make, said, tmp_path):
    good, bad = str(write_run(tmp_path / "good", WHOLE)), tmp_path / "bad"
    make(bad)
    with pytest.raises(UserError) as refused:
        find_runs([good, str(bad)])
    assert str(refused.value).startswith(f"{bad}: ") and said in str(refused.value)


def test_a_folder_inside_of_a_run_is_refused_with_the_name_of_the_run(two):
    (Path(two[0]) / "model").mkdir()
    with pytest.raises(UserError, match=f"Name the run: {two[0]}"):
        find_runs([two[1], f"{two[0]}/model"])


def test_a_refinement_measured_no_model(two, tmp_path):
    run = write_run(tmp_path / "refined", WHOLE)
    summary = json.loads((run / "summary.json").read_text())
    del summary["base"]
    write_json(run / "summary.json", summary)
    with pytest.raises(UserError, match="a finished refinement, which measured no model"):
        find_runs([two[0], str(run)])


def test_fewer_than_two_runs_and_the_same_run_twice_are_refused(two, tmp_path):
    with pytest.raises(UserError, match="a comparison takes two or more"):
        find_runs([two[0]])
    with pytest.raises(UserError, match="name each run once"):
        find_runs([two[0], two[0]])
    (tmp_path / "link").symlink_to(two[0])
    with pytest.raises(UserError, match="the same run as"):
        find_runs([two[0], str(tmp_path / "link")])


def test_files_never_go_into_a_run_or_over_a_file(two, tmp_path):
    with pytest.raises(UserError, match="that is a run directory"):
        compare(two, Path(two[0]))
    write_text(tmp_path / "file", "")
    with pytest.raises(UserError, match="a file lies there"):
        compare(two, tmp_path / "file")


def test_the_folder_without_out_follows_from_the_runs(two, tmp_path):
    assert default_folder(two) == default_folder(two) != default_folder(two[::-1])
    assert default_folder(two, tmp_path).parent == tmp_path


def test_files_of_an_earlier_comparison_of_more_models_are_gone(two, tmp_path):
    third = str(write_run(tmp_path / "base", WHOLE))
    compare([*two, third], tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "difference-A-C.svg").exists()
    compare(two, tmp_path / "out")
    assert not (tmp_path / "out" / "figures" / "difference-A-C.svg").exists()


def test_a_task_whose_outputs_are_gone_is_named(two, tmp_path):
    (Path(two[0]) / "evaluation" / "tuned" / "gsm8k.jsonl").unlink()
    found = compare(two, tmp_path / "out")
    assert [(one.task, one.why) for one in found.skipped] == [("gsm8k", "the outputs of one of them are not on disk")]


@pytest.mark.parametrize("line", ['{"id": "a"}', "[]", '{"id": "a", "kind": "none", "prompt": "p"}'])
def test_a_line_that_is_no_output_is_named_by_its_file(line, two, tmp_path):
    write_text(Path(two[0]) / "evaluation" / "tuned" / "gsm8k.jsonl", line + "\n")
    with pytest.raises(UserError, match=r"gsm8k\.jsonl"):
        compare(two, tmp_path / "out")


def test_a_summary_of_another_shape_is_refused(two):
    summary = json.loads((Path(two[0]) / "summary.json").read_text())
    write_json(Path(two[0]) / "summary.json", summary | {"tuned": []})
    with pytest.raises(UserError, match=r"its summary.json is not that of a run"):
        find_runs(two)
