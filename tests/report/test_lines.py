import pytest

from dgr_lightning.report.lines import health_lines, result_lines, run_facts
from dgr_lightning.statistics.intervals import Estimate
from tests.helpers.finished_run import REFINEMENT, make_summary


def test_rows_are_headlines_followed_by_their_tasks_with_the_difference_training_made():
    rows = list(result_lines(make_summary()))
    assert [(row.title, row.is_headline) for row in rows] == [
        ("reasoning", True),
        ("gsm8k", False),
        ("refusal", True),
        ("strongreject", False),
        ("over-refusal", True),
        ("xstest", False),
    ]
    assert [row.tone for row in rows] == ["worse", "worse", "better", "better", "same", "same"]
    # The headline's is the paired tax with its sign turned, a task's the difference of its two rates.
    assert rows[0].difference == Estimate(pytest.approx(-0.2), pytest.approx(-0.28), pytest.approx(-0.12), 50)
    assert rows[3].difference is not None and rows[3].difference.value == pytest.approx(0.9)


def test_rates_beside_the_figures_are_in_the_order_of_their_titles():
    assert dict(health_lines(make_summary()))["gsm8k"] == ["2.0 → 2.0", "0.0 → 0.0", "10.0 → 10.0"]


def test_a_set_of_several_sources_is_counted_by_source_and_label():
    counts = {"rejected": {}, "labels": {"harmful": 30, "retention": 10}, "sources": {"star1": 30, "maths": 10}}
    facts = dict(run_facts(make_summary(refinement=REFINEMENT, **counts)))
    assert facts["examples from"] == "star1 30, maths 10; harmful 30, retention 10"
    one = counts | {"labels": {"harmful": 30}, "sources": {"star1": 30}}
    assert "examples from" not in dict(run_facts(make_summary(refinement=REFINEMENT, **one)))


def test_a_kind_with_a_skipped_task_shows_its_other_tasks_under_an_undefined_headline():
    lines = list(result_lines(make_summary(skipped={"gpqa": "reasoning"})))
    whole = list(result_lines(make_summary()))
    assert [line.title for line in lines] == [line.title for line in whole] and lines[0].title == "reasoning"
    assert (lines[0].base, lines[0].tuned, lines[0].difference, lines[0].tone) == (None, None, None, "same")
    assert lines[1:] == whole[1:]
