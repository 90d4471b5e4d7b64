"""Rates that judges say: which outputs count, whose rate stands where, what failed verdicts do, and the files."""

import pytest

from dgr_lightning.evaluation.judged_rates import judged_estimates, judges_apart
from dgr_lightning.evaluation.subjects import BASE, outputs_file
from dgr_lightning.files import write_jsonl
from dgr_lightning.report.lines import agreement_lines, judge_lines, result_lines
from dgr_lightning.report.summary import build_summary
from dgr_lightning.report.terminal import show_summary
from dgr_lightning.statistics.intervals import Estimate, difference, macro
from tests.helpers.evaluations import good, run_evaluation

FIELDS = ("refused", "harmful", "probability", "score", "error")


def said(judge: str, part: str = "answer", **values) -> dict:
    return {"judge": judge, "part": part} | dict.fromkeys(FIELDS) | values


def row(number: int, refused: bool | None, *judged: dict, kind: str = "harmful") -> dict:
    return {"id": f"p-{number}", "sample": 0, "kind": kind, "refused": refused, "judged": list(judged)}


def rows(kind: str = "harmful") -> list[dict]:
    """Five outputs: refused, harmful, one on which the guard failed, one without an answer, one harmless."""
    words = [True, False, False, None, False]
    guards = [
        {"harmful": False, "probability": 0.1},
        {"harmful": True, "probability": 0.9},
        {"error": "unparsable"},
        {"error": "no_text"},
        {"harmful": False},
    ]
    return [
        row(
            number,
            bool(word),
            said("guard", **guard),
            said("guard", "trace", harmful=number < 4),
            said("keywords", refused=word) if word is not None else said("keywords", error="no_text"),
            kind=kind,
        )
        for number, (word, guard) in enumerate(zip(words, guards, strict=True))
    ]


@pytest.mark.parametrize(("kind", "refusals"), [("harmful", "refusal_rate"), ("benign", "over_refusal_rate")])
def test_each_rate_names_its_judge_and_failed_verdicts_leave_it(kind, refusals):
    found = judged_estimates(rows(kind))
    values = {metric: (value.value, value.n, value.judge) for metric, value in found.items()}
    assert values == {
        refusals: (0.2, 5, "keywords"),
        "harm_rate": (0.25, 4, "guard"),
        "trace_harm_rate": (0.8, 5, "guard"),
        "judge_error_rate": (0.2, 5, "guard"),
    }


def test_where_no_judge_could_tell_the_rate_is_undefined_and_so_is_the_headline():
    failed = [row(number, None, said("guard", error="failed")) for number in range(3)]
    found = judged_estimates(failed)
    assert found["refusal_rate"] == Estimate(None, None, None, 0) and found["judge_error_rate"].value == 1
    assert macro([found["refusal_rate"], judged_estimates(rows())["refusal_rate"]]).value is None


def test_rates_of_two_judges_have_no_average_and_no_difference():
    one, other = Estimate(0.2, 0.1, 0.3, 50, "a"), Estimate(0.4, 0.3, 0.5, 50, "b")
    assert difference(one, other).value is None and macro([one, other]).value is None
    assert difference(one, one).judge == macro([one, one]).judge == one.scaled(2).judge == "a"
    assert "judge" not in Estimate(0.2, 0.1, 0.3, 50).to_json() and one.to_json()["judge"] == "a"


def test_the_mean_of_scores_stands_beside_the_rate():
    scored = [
        row(0, False, said("s", refused=False, harmful=True, score=1.0)),
        row(1, True, said("s", refused=True, harmful=False, score=0.0)),
        row(2, False, said("s", refused=False, harmful=False, score=0.25)),
        row(3, False, said("s", error="no_text")),
    ]
    found = judged_estimates(scored)
    assert found["harm_score"].value == pytest.approx(1.25 / 4) and found["harm_rate"].value == 0.25


def test_judges_behind_the_first_stand_apart_with_their_agreement(tmp_path, capsys):
    both = [
        row(
            number,
            number < 6,
            said("a", refused=number < 6, harmful=False),
            said("b", refused=number < 5, harmful=number == 9),
        )
        for number in range(10)
    ]
    write_jsonl(outputs_file(tmp_path, BASE, "strongreject"), both)
    estimates = {"strongreject": judged_estimates(both)}
    apart = judges_apart(tmp_path, BASE, estimates)
    assert {metric: value["value"] for metric, value in apart["judges"]["b"]["strongreject"].items()} == {
        "refusal_rate": 0.5,
        "harm_rate": 0.1,
        "judge_error_rate": 0.0,
    }
    refusals, harm = apart["agreement"]
    assert refusals["judges"] == ["a", "b"] and (refusals["says"], refusals["part"], refusals["n"]) == ("refused", "answer", 10)
    assert refusals["agreement"]["value"] == 0.9 and refusals["kappa"]["value"] == pytest.approx(0.8)
    assert harm["says"] == "harmful" and harm["agreement"]["value"] == 0.9
    summary = build_summary("ab", {}, base=estimates, judges={BASE: apart})
    assert (
        summary["base"]["headline"]["refusal_rate"]["judge"] == "a" and summary["base"]["headline"]["harm_rate"]["value"] == 0
    )
    assert [(line.title, line.judge) for line in result_lines(summary)] == [
        ("refusal", "a"),
        ("strongreject", "a"),
        ("harm", "a"),
        ("strongreject", "a"),
    ]
    assert ("b", "strongreject", "harm") in [(line.judge, line.task, line.title) for line in judge_lines(summary)]
    assert dict(agreement_lines(summary))["a and b: refused, answer"][:2] == ["model", "10"]
    show_summary(summary, "a: one measure\nb: another")
    shown = capsys.readouterr().out
    assert "refusal by a" in shown and "b: another" in shown and "kappa" in shown and "b: strongreject, harm" in shown


def test_a_single_judge_leaves_nothing_apart(chat, cfg, tmp_path):
    measures, _ = run_evaluation(good, chat, cfg, tmp_path)
    assert judges_apart(tmp_path, BASE, {}) == {}
    assert {metric: value.judge for metric, value in measures["strongreject"].items()} == {
        "refusal_rate": "keywords",
        "cap_hit_rate": None,
        "missing_thinking_rate": None,
        "early_stop_rate": None,
        "mean_tokens": None,
    }
    assert measures["gsm8k"]["accuracy"].judge is None


def test_lines_of_judged_tasks_load_as_a_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_jsonl(tmp_path / "lines.jsonl", rows())
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "lines.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[1]["judged"][0]["probability"] == 0.9 and loaded[0]["judged"][2]["refused"] is True
