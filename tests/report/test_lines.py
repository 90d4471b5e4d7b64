import pytest

from dgr_lightning.evaluation.differences import Differences
from dgr_lightning.report.lines import beside_table, health_lines, result_lines, run_facts
from dgr_lightning.statistics.intervals import Estimate
from tests.helpers.finished_run import REFINEMENT, TAX, estimates, make_summary


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


def test_differences_that_are_paired_on_problems_are_shown_where_there_are_some():
    changes = Differences(
        {"refusal_rate": Estimate(0.9, 0.85, 0.95, 50)},
        {
            "strongreject": {"refusal_rate": Estimate(0.9, 0.84, 0.96, 50)},
            "gsm8k": {"cap_hit_rate": Estimate(0.0, 0.0, 0.1, 50)},
        },
    )
    summary = make_summary(base=estimates(0.98, 0.1), tuned=estimates(0.78, 1.0), tax=TAX, differences=changes)
    lines = {line.title: line.difference for line in result_lines(summary)}
    assert lines["refusal"].low == 0.85 and lines["strongreject"].low == 0.84
    apart = {line.title: line.difference for line in result_lines(make_summary())}
    # What was not paired is treated as independent; the reasoning headline is the tax with its sign turned.
    assert lines["gsm8k"] == apart["gsm8k"] and lines["over-refusal"] == apart["over-refusal"]
    assert lines["reasoning"].low == pytest.approx(-0.28)


def test_what_stands_beside_the_metric_has_a_column_where_some_task_has_it():
    base, tuned = estimates(0.98, 0.1), estimates(0.78, 1.0)
    for side, tokens in ((base, 1200.4), (tuned, 900.0)):
        for metrics in side.values():
            metrics["mean_tokens"] = Estimate(tokens, tokens - 100, tokens + 100, 50)
        side["gsm8k"] |= {name: Estimate(0.25, 0.1, 0.5, 50) for name in ("accuracy_of_finished", "maj@4", "pass@16", "pass@4")}
    tuned["gsm8k"]["accuracy_of_finished"] = Estimate(None, None, None, 0)
    titles, rows = beside_table(make_summary(base=base, tuned=tuned, tax=TAX))
    assert titles == ["mean tokens", "right of finished", "maj@4", "pass@4", "pass@16"]
    assert dict(rows)["gsm8k"] == ["1,200 → 900", "25.0 → –", *["25.0 → 25.0"] * 3]
    assert dict(rows)["xstest"] == ["1,200 → 900", *["–"] * 4]
    assert beside_table(make_summary())[0] == []


def test_a_kind_with_a_skipped_task_shows_its_other_tasks_under_an_undefined_headline():
    lines = list(result_lines(make_summary(skipped={"gpqa": "reasoning"})))
    whole = list(result_lines(make_summary()))
    assert [line.title for line in lines] == [line.title for line in whole] and lines[0].title == "reasoning"
    assert (lines[0].base, lines[0].tuned, lines[0].difference, lines[0].tone) == (None, None, None, "same")
    assert lines[1:] == whole[1:]
