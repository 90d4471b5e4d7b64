"""`comparison.html`: a comparison as one self-contained page, without scripts and without network access; and its figures.

Names of models and directories are other people's text: they reach the page only through the template's escaping, and a content
security policy forbids scripts and every outside resource. Outputs of models are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dgr_lightning.files import write_text
from dgr_lightning.number_format import UNDEFINED
from dgr_lightning.report import svg
from dgr_lightning.report.comparison import LEVEL, Compared, Comparison, title_of
from dgr_lightning.report.comparison_charts import budget_chart, forest_charts, rate_charts
from dgr_lightning.report.forest import FOREST_STYLE, stand_alone
from dgr_lightning.report.page import environment
from dgr_lightning.report.svg import Series
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import HEALTH

FIGURES = "figures"
MARK = "*"
"""Stands beside a difference that is significant."""


class RateRow(NamedTuple):
    """A headline or a task, with the rate of each model."""

    title: str
    is_headline: bool
    estimates: list[Estimate | None]


class HealthRow(NamedTuple):
    """A task, or a model on it, with its figures as text."""

    title: str
    is_headline: bool
    cells: list[str]


def write_page(found: Comparison, path: Path) -> None:
    """Writes the page, and beside it `figures/` with every chart as an SVG file."""
    from markupsafe import Markup

    rates, forests = rate_charts(found), forest_charts(found)
    budget = budget_chart(found)
    _write_figures(found, rates, forests, path.parent / FIGURES)
    if budget is not None:
        legend = [Series(f"{model.letter} {model.name}", (), i % svg.NUM_COLORS) for i, model in enumerate(found.models)]
        write_text(path.parent / FIGURES / "budget.svg", svg.picture("Token budgets", [budget], legend, columns=1))
    pages = environment()
    pages.filters |= {"mark": mark, "p_value": p_value}
    text = pages.get_template("comparison.html.jinja").render(
        found=found,
        title=_title(found),
        style=Markup(svg.palette_style() + svg.CHART_STYLE + FOREST_STYLE),
        num_colors=svg.NUM_COLORS,
        models=[_for_page(model, index) for index, model in enumerate(found.models)],
        fact_names=fact_names(found),
        taxes=any(model.tax is not None for model in found.models),
        common=common_tasks(found),
        significance=significance(found),
        has_p=any(one.adjusted is not None for one in found.differences),
        rates=list(rate_rows(found)),
        rate_charts=[Markup(chart) for chart in rates.values()],
        forests=[Markup(chart) for chart in forests.values()],
        pairs=[
            (_for_page(found.model(a), _index(found, a)), _for_page(found.model(b), _index(found, b)), differences)
            for (a, b), differences in found.pairs().items()
        ],
        health=list(health_rows(found)),
        budget=budget and Markup(budget),
    )
    write_text(path, text)


def _write_figures(found: Comparison, rates: Mapping[str, str], forests: Mapping[tuple[str, str], str], folder: Path) -> None:
    names = [f"{model.letter} {model.name}" for model in found.models]
    for metric, chart in rates.items():
        write_text(folder / f"{metric}.svg", stand_alone(chart, names))
    for (a, b), chart in forests.items():
        pair = [f"{letter} {found.model(letter).name}" for letter in (a, b)]
        write_text(folder / f"difference-{a}-{b}.svg", stand_alone(chart, pair, colored=False))


def _title(found: Comparison) -> str:
    if len(found.models) > 2:
        return f"{len(found.models)} models compared"
    first, second = found.models
    return f"{second.name} against {first.name}"


def _index(found: Comparison, letter: str) -> int:
    return [model.letter for model in found.models].index(letter)


def _for_page(model: Compared, index: int) -> dict[str, Any]:
    return vars(model) | {"color": index % svg.NUM_COLORS}


def fact_names(found: Comparison) -> list[str]:
    """Returns the facts in which the models differ that have them; a model that was not trained here has few."""
    names = dict.fromkeys(name for model in found.models for name in model.facts)
    return [name for name in names if len({model.facts[name] for model in found.models if name in model.facts}) > 1]


def common_tasks(found: Comparison) -> str:
    """Returns the sentence on the tasks that the models' headlines are means over."""
    tasks = dict.fromkeys(task for of_measure in found.tasks().values() for task in of_measure)
    shared = [task for task in tasks if all(task in model.estimates for model in found.models)]
    return f"Headlines are means over the tasks that all of them have: {', '.join(shared)}." if shared else ""


def significance(found: Comparison) -> str:
    """Returns the sentence on what a mark means."""
    if any(one.adjusted is not None for one in found.differences):
        return f"{MARK}: p < {LEVEL:g} after the adjustment for all differences shown ({found.adjustment})."
    return f"{MARK}: the 95 % interval does not hold 0."


def rate_rows(found: Comparison) -> Iterator[RateRow]:
    """Yields for each rate the models' headlines, then those of its tasks."""
    for measure, tasks in found.tasks().items():
        yield RateRow(title_of(measure), True, [model.headline.get(measure.metric) for model in found.models])
        for task in tasks:
            yield RateRow(task, False, [model.estimates.get(task, {}).get(measure.metric) for model in found.models])


def health_rows(found: Comparison) -> Iterator[HealthRow]:
    """Yields each task, and under it the mean tokens and the health of every model's outputs."""
    for task in dict.fromkeys(task for tasks in found.tasks().values() for task in tasks):
        yield HealthRow(task, True, [""] * (1 + len(HEALTH)))
        for model in found.models:
            if task not in model.estimates:
                continue
            tokens = model.mean_tokens.get(task)
            shares = [model.estimates[task].get(metric) for metric in HEALTH]
            cells = [UNDEFINED if tokens is None else f"{tokens:,.0f}"]
            cells += [UNDEFINED if one is None or one.value is None else f"{100 * one.value:.1f}" for one in shares]
            yield HealthRow(f"{model.letter} {model.name}", False, cells)


def mark(text: str, is_significant: bool) -> str:
    """Returns a difference's text with `MARK` beside its value where it is significant."""
    value, bracket, interval = text.partition(" (")
    return f"{value}{MARK}{bracket}{interval}" if is_significant else text


def p_value(p: float | None) -> str:
    """Returns a p-value for people: three decimals, and what is smaller as `< 0.001`."""
    return UNDEFINED if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
