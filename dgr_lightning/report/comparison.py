"""A comparison of finished runs, as tables, page and files show it: the models, the paired differences, what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dgr_lightning.evaluation.pairing import ALL_MEASURES, Measure
from dgr_lightning.report.lines import TITLES, WANTED
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import HARM_RATE, TRACE_HARM_RATE, Estimates

HEADLINE = "headline"
"""Stands for a task where the mean over the tasks of a kind is meant."""

LEVEL = 0.05
"""A difference is marked where its adjusted p-value lies below this."""


_HARM_TITLES = {HARM_RATE: "harm", TRACE_HARM_RATE: "harm in traces"}


def title_of(measure: Measure) -> str:
    """Returns what tables call the mean of a rate."""
    return _HARM_TITLES.get(measure.metric) or TITLES[measure.kind.name]


@dataclass(frozen=True)
class Compared:
    """A model in a comparison.

    Attributes:
        letter: by which tables call it: A, B, C …
        name: what tells it from the others, from its config.
        directory: of its run, as the user named it.
        facts: name → text of what is known of it.
        estimates: task → metric → estimate, of all its tasks.
        headline: metric → mean over the tasks that every model of the comparison has; undefined ones are left out.
        kinds: task → name of its kind.
        tax: safety tax of its training in points, with its 95 % interval; None: it was not trained here.
        mean_tokens: task → tokens of an output.
        budget: (token budget, reasoning accuracy that it would have given) in rising order, as far as the run has computed it.
    """

    letter: str
    name: str
    directory: str
    facts: Mapping[str, str]
    estimates: Estimates
    headline: Mapping[str, Estimate]
    kinds: Mapping[str, str]
    tax: Estimate | None = None
    mean_tokens: Mapping[str, float] = field(default_factory=dict)
    budget: Sequence[tuple[int, Estimate]] = ()


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models' rates, b minus a.

    Attributes:
        a: letter of the first model.
        b: letter of the second one.
        task: of the rate, or `HEADLINE`.
        measure: the rate.
        metric: its name, or that of its mean over tasks.
        judge: that both rates are by; None where they are graded.
        rates: of the two, over the problems that both have.
        difference: with its 95 % interval; `n` is the number of these problems.
        p: of the hypothesis that there is none; None where that cannot be said.
        adjusted: the same, adjusted for all differences that are shown.
        changed: problems on which b has the higher rate, and on which it has the lower one.
    """

    a: str
    b: str
    task: str
    measure: Measure
    metric: str
    judge: str | None
    rates: tuple[Estimate, Estimate]
    difference: Estimate
    changed: tuple[int, int]
    p: float | None = None
    adjusted: float | None = None

    @property
    def title(self) -> str:
        """What is measured, as tables call it."""
        return title_of(self.measure) if self.task == HEADLINE else self.task

    @property
    def is_significant(self) -> bool:
        """Whether it remains after the adjustment for the number of comparisons."""
        if self.adjusted is None:
            low, high = self.difference.low, self.difference.high
            return (low is not None and low > 0) or (high is not None and high < 0)
        return self.adjusted < LEVEL

    @property
    def tone(self) -> str:
        """`better` or `worse` from a to b; `same` where the difference is not significant."""
        if self.difference.value is None or not self.is_significant:
            return "same"
        wanted = WANTED[self.measure.kind.name] if self.measure.metric == self.measure.kind.metric else False
        return "better" if (self.difference.value > 0) == wanted else "worse"


@dataclass(frozen=True)
class Skipped:
    """A task on which two models were not set against each other, with a clause that says why."""

    a: str
    b: str
    task: str
    why: str


@dataclass(frozen=True)
class Comparison:
    """A comparison of several models.

    Attributes:
        models: in the order of the command line.
        differences: of every pair: by kind, its headline, then its tasks.
        skipped: what was not paired.
        warnings: sentences on what a reader of the differences must know.
        notes: sentences on the judges whose rates are shown.
        adjustment: name of the adjustment of the p-values; empty where none was made.
    """

    models: Sequence[Compared]
    differences: Sequence[Difference]
    skipped: Sequence[Skipped] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    adjustment: str = ""

    def model(self, letter: str) -> Compared:
        """Returns the model that tables call by a letter."""
        return next(model for model in self.models if model.letter == letter)

    def pairs(self) -> dict[tuple[str, str], list[Difference]]:
        """Returns (letter, letter) → its differences, of every pair that has some."""
        found: dict[tuple[str, str], list[Difference]] = {}
        for one in self.differences:
            found.setdefault((one.a, one.b), []).append(one)
        return found

    def tasks(self) -> dict[Measure, list[str]]:
        """Returns each rate with the tasks that any model has it of, in their order; rates that none has are left out."""
        found = {
            measure: list(
                dict.fromkeys(
                    task
                    for model in self.models
                    for task, metrics in model.estimates.items()
                    if measure.metric in metrics and model.kinds.get(task) == measure.kind.name
                )
            )
            for measure in ALL_MEASURES
        }
        return {measure: tasks for measure, tasks in found.items() if tasks}

    def to_json(self) -> dict[str, Any]:
        """Returns `comparison.json`: every paired difference, between run directories as the user named them."""
        places = {model.letter: model.directory for model in self.models}
        return {
            "pairs": [
                {
                    "a": places[one.a],
                    "b": places[one.b],
                    "task": one.task,
                    "metric": one.metric,
                    "judge": one.judge,
                    "difference": one.difference.to_json(),
                }
                for one in self.differences
            ]
        }

    def details(self) -> dict[str, Any]:
        """Returns what comparison.json has no place for: models, p-values, problems that changed, what was left out."""
        return {
            "models": [
                {"letter": model.letter, "name": model.name, "directory": model.directory, "facts": dict(model.facts)}
                for model in self.models
            ],
            "differences": [
                {
                    "a": one.a,
                    "b": one.b,
                    "task": one.task,
                    "metric": one.metric,
                    "rates": [side.to_json() for side in one.rates],
                    "p": one.p,
                    "p_adjusted": one.adjusted,
                    "up": one.changed[0],
                    "down": one.changed[1],
                }
                for one in self.differences
            ],
            "adjustment": self.adjustment,
            "skipped": [asdict(one) for one in self.skipped],
            "warnings": list(self.warnings),
        }
