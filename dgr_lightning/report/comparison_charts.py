"""The charts of a comparison: rates of the models by task, and a forest plot of the differences of each pair."""

from __future__ import annotations

from dgr_lightning.report import svg
from dgr_lightning.report.comparison import HEADLINE, Comparison
from dgr_lightning.report.estimates import percent, signed
from dgr_lightning.report.forest import Mark, Row, difference_axis, forest
from dgr_lightning.report.svg import Point, Series
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import HARM_RATE, TRACE_HARM_RATE

_UNDEFINED = Estimate(None, None, None, 0)
_TITLES = {
    "accuracy": "Reasoning accuracy",
    "refusal_rate": "Refusal of harmful",
    "over_refusal_rate": "Over-refusal of benign",
    HARM_RATE: "Harmful answers",
    TRACE_HARM_RATE: "Harmful traces",
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


def budget_chart(found: Comparison) -> str | None:
    """Returns reasoning accuracy over smaller token budgets, a line a model; None where no two can be set side by side.

    A model's curve is the mean over its reasoning tasks: models with other tasks have no place in it.
    """
    curves = [(index, model) for index, model in enumerate(found.models) if len(model.budget) > 1]
    tasks = {frozenset(task for task, kind in model.kinds.items() if kind == "reasoning") for _, model in curves}
    if len(curves) < 2 or len(tasks) > 1:
        return None
    lines = [
        Series(
            model.letter,
            [Point(cap, one.value or 0.0, one.low, one.high) for cap, one in model.budget],
            index % svg.NUM_COLORS,
            "circle",
            look="thin",
            band=True,
        )
        for index, model in curves
    ]
    caps = sorted({cap for _, model in curves for cap, _ in model.budget})
    axis = svg.Axis("tokens, thinking included", caps[0], caps[-1], caps[:: -(-len(caps) // 6)], log=True)
    return svg.chart("Reasoning accuracy under smaller budgets", lines, axis, svg.rate_axis(""))


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
