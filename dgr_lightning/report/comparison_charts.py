"""The charts of a comparison: rates of the models by task, and a forest plot of the differences of each pair."""

from __future__ import annotations

from dgr_lightning.evaluation.pairing import HARM, TRACE_HARM
from dgr_lightning.report import svg
from dgr_lightning.report.comparison import HEADLINE, Comparison
from dgr_lightning.report.estimates import percent, signed
from dgr_lightning.report.forest import Mark, Row, difference_axis, forest
from dgr_lightning.statistics.intervals import Estimate

_UNDEFINED = Estimate(None, None, None, 0)
_TITLES = {
    "accuracy": "Reasoning accuracy",
    "refusal_rate": "Refusal of harmful",
    "over_refusal_rate": "Over-refusal of benign",
    HARM: "Harmful answers",
    TRACE_HARM: "Harmful traces",
}


def rate_charts(found: Comparison) -> dict[str, str]:
    """Returns metric → chart of the models' rates, a row a task and the headline above them."""
    charts = {}
    for measure, tasks in found.tasks().items():
        rows = []
        if any(measure.metric in model.headline for model in found.models) and len(tasks) > 1:
            heads = [model.headline.get(measure.metric, _UNDEFINED) for model in found.models]
            rows.append(_row(found, "mean", heads, True))
        for task in tasks:
            own = [model.estimates.get(task, {}).get(measure.metric, _UNDEFINED) for model in found.models]
            rows.append(_row(found, task, own, False))
        charts[measure.metric] = forest(_TITLES[measure.metric], rows, svg.rate_axis(""))
    return charts


def _row(found: Comparison, name: str, estimates: list[Estimate], strong: bool) -> Row:
    marks = [
        Mark(estimate, f"{model.letter} {model.name}: {percent(estimate)}", index)
        for index, (model, estimate) in enumerate(zip(found.models, estimates, strict=True))
    ]
    return Row(name, marks, strong)


def forest_charts(found: Comparison) -> dict[tuple[str, str], str]:
    """Returns (letter, letter) → forest plot of the pair's differences; those that are not significant have hollow marks."""
    charts = {}
    for (a, b), differences in found.pairs().items():
        rows = [
            Row(
                one.title,
                [Mark(one.difference, f"{one.title}: {signed(one.difference)} points", 0, not one.is_significant)],
                one.task == HEADLINE,
            )
            for one in differences
        ]
        axis = difference_axis([one.difference for one in differences], f"{b} minus {a}")
        charts[a, b] = forest(f"{b} against {a}", rows, axis, zero=True)
    return charts
