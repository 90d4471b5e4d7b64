from xml.etree import ElementTree

import pytest

from dgr_lightning.evaluation.budget import budget_curves, budget_file, write_budget
from dgr_lightning.evaluation.subjects import outputs_file
from dgr_lightning.files import write_jsonl, write_text
from dgr_lightning.report import charts
from dgr_lightning.statistics.bootstrap import distribution
from tests.helpers.finished_run import SHIFT, SIMILAR, UNMEASURED, write_run


def test_a_set_that_refinement_left_alone_has_one_distribution(tmp_path):
    record = SHIFT | {"after": SHIFT["before"]}
    assert ["before" in chart for chart in charts.nll_charts(record)] == [False] * 3
    assert [chart.count("<polygon") for chart in charts.nll_charts(record)] == [1] * 3
    assert [chart.count("<polygon") for chart in charts.nll_charts(SHIFT)] == [2] * 3
    assert len(charts.nll_charts(UNMEASURED)) == 3


def test_histograms_are_laid_over_each_other_in_shares_on_one_axis():
    before = {"before": distribution([0.1] * 3 + [9.99]), "after": distribution([0.12] * 8)}
    sides = {when: dict.fromkeys(("trace", "answer", "both"), before[when]) for when in before}
    chart = charts.nll_charts(sides)[0]
    first, second = ([tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in _polylines(chart))
    # 200 bins are drawn as 40; the first holds three quarters of one set and all of the other.
    assert len(first) == len(second) == 2 * 40 + 2
    foot = first[0][1]
    assert (foot - first[1][1]) == pytest.approx(0.75 * (foot - second[1][1]), abs=0.2)
    assert first[-2][1] < foot and second[-2][1] == foot
    (drawn,) = charts.similarity_charts({"rewrites": SIMILAR, "outputs": None})
    assert "cosine" in drawn and "1.05" not in drawn


def _polylines(chart: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(chart).iter("polyline"))


def test_curves_start_at_step_0_and_leave_empty_cells_out(tmp_path):
    drawn = charts.curve_charts(write_run(tmp_path) / "metrics.csv")
    loss, reasoning, safety = (ElementTree.fromstring(chart) for chart in drawn)
    assert [len(line.get("points").split()) for line in loss.iter("polyline")] == [20]
    (line,) = reasoning.iter("polyline")
    assert len(line.get("points").split()) == 2
    assert "0: 98.0%" in drawn[1] and "20: 78.0%" in drawn[1]
    assert len(list(safety.iter("polyline"))) == 2
    assert charts.curve_charts(tmp_path / "none.csv") == []


def test_a_long_loss_curve_is_averaged_to_what_a_chart_can_show(tmp_path):
    text = "trainer/global_step,train/loss\n" + "".join(f"{step},{step % 2}\n" for step in range(1, 3201))
    write_text(tmp_path / "metrics.csv", text)
    (chart,) = charts.curve_charts(tmp_path / "metrics.csv")
    (line,) = ElementTree.fromstring(chart).iter("polyline")
    heights = {point.split(",")[1] for point in line.get("points").split()}
    assert len(line.get("points").split()) == 160 and len(heights) == 1 and "mean of 20 steps" in chart


def test_the_budget_curve_has_a_line_for_each_model_over_the_same_caps(tmp_path):
    for subject, right in (("base", 60), ("tuned", 90)):
        rows = [
            {"id": str(i), "sample": 0, "kind": "reasoning", "num_tokens": 40 + i, "correct": i < right} for i in range(100)
        ]
        write_jsonl(outputs_file(tmp_path, subject, "gsm8k"), rows)
    assert charts.budget_charts(budget_file(tmp_path)) == []
    write_budget(tmp_path, ["base", "tuned"], ["gsm8k"])
    (chart,) = charts.budget_charts(budget_file(tmp_path))
    ElementTree.fromstring(chart)
    caps = len(budget_curves(tmp_path, ["base"], ["gsm8k"])["gsm8k"].caps)
    assert chart.count("<circle") == 2 * caps + 2 and chart.count("<polyline") == chart.count("<polygon") == 2
    write_budget(tmp_path, ["base"], [])
    assert charts.budget_charts(budget_file(tmp_path)) == []
