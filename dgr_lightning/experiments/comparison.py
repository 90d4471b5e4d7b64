"""Compares finished runs: every pair of models on the problems that both were given, into one folder of tables and figures.

Of a training its tuned model counts, of an evaluation its only one. Two tuned models of one base, DGR against vanilla, are the
comparison that the project makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from dgr_lightning.config.keys import is_private, keys
from dgr_lightning.errors import UserError
from dgr_lightning.evaluation.pairing import (
    ALL_MEASURES,
    Measure,
    PairedTask,
    TaskOutcomes,
    capped_difference,
    changes,
    difference,
    pair_task,
    read_outcomes,
)
from dgr_lightning.evaluation.subjects import outputs_file
from dgr_lightning.experiments.finished_evaluations import FinishedEvaluation, facts, find_runs, names
from dgr_lightning.files import exists, local_path, write_json
from dgr_lightning.hashes import content_hash
from dgr_lightning.report.comparison import HEADLINE, Compared, Comparison, Difference, Skipped
from dgr_lightning.report.comparison_page import FIGURES, write_page
from dgr_lightning.report.samples import side_of
from dgr_lightning.report.viewer import OUTPUTS, write_viewer
from dgr_lightning.scoring.judge import JUDGES
from dgr_lightning.statistics.intervals import Estimate, macro, rate
from dgr_lightning.statistics.paired import adjusted

PAGE, PAIRS, DETAILS = "comparison.html", "comparison.json", "details.json"

_SAME_SUBJECT = ("evaluation.name", "evaluation.tasks", "evaluation.limit")
"""Keys of an evaluation that choose problems: which ones two runs have in common is counted, not guessed from these."""

_ADJUSTMENT = "holm"
"""It bounds the chance of a single false mark among all the differences of a comparison, whatever their dependence."""

Outcomes = Mapping[str, TaskOutcomes]
"""Task → what the outputs of a model count as."""


def compare(given: Sequence[str], out: Path) -> Comparison:
    """Compares finished runs and writes the pages, comparison.json, details.json and figures/ into a folder.

    Args:
        given: run directories, as the user named them.
        out: the folder; files of an earlier comparison in it are replaced.

    Raises:
        UserError: a directory is no finished run, fewer than two are named or one twice, two runs have no task in common, or
            the folder cannot take the files.
    """
    runs = find_runs(given)
    _check_out(out)
    found = comparison(runs)
    _clear(out)
    write_page(found, out / PAGE)
    names = [f"{model.letter}: {model.name}" for model in found.models]
    sides = [side_of(name, run.directory, run.subject, run.samples) for name, run in zip(names, runs, strict=True)]
    write_viewer(out / OUTPUTS, "Outputs compared", sides)
    write_json(out / DETAILS, found.details())
    write_json(out / PAIRS, found.to_json())
    return found


def comparison(runs: Sequence[FinishedEvaluation]) -> Comparison:
    """Returns the comparison of finished runs; raises a UserError where no two of them can be paired on any task."""
    outcomes = [_outcomes(run) for run in runs]
    models = _models(runs, outcomes)
    differences: list[Difference] = []
    skipped: list[Skipped] = []
    warnings = list(_left_out(runs, models))
    for (first, a), (second, b) in combinations(enumerate(models), 2):
        paired: dict[str, list[PairedTask]] = {}
        for task in (task for task in outcomes[first] if task in outcomes[second]):
            paired[task], left_out = pair_task(outcomes[first][task], outcomes[second][task])
            skipped += [Skipped(a.letter, b.letter, task, why) for why in left_out]
        gone = [task for task in a.estimates if task in b.estimates and task not in paired]
        skipped += [Skipped(a.letter, b.letter, task, "the outputs of one of them are not on disk") for task in gone]
        differences += _differences(a, b, paired)
        warnings += _pair_warnings((runs[first], runs[second]), (a, b), (outcomes[first], outcomes[second]), paired)
    if not differences:
        reasons = dict.fromkeys(f"{one.task}: {one.why}" for one in skipped)
        raise UserError(
            "Nothing to compare: no two of these runs have a task that can be paired. "
            + (" ".join(f"{reason}." for reason in reasons) or "They measured different tasks.")
        )
    notes = list(_judge_notes(runs)) if any(one.judge is not None for one in differences) else []
    return Comparison(models, _adjusted(differences), skipped, list(dict.fromkeys(warnings)), notes, _ADJUSTMENT.capitalize())


def _outcomes(run: FinishedEvaluation) -> Outcomes:
    """Reads what every output of a run's model counts as."""
    found = {}
    for task in run.samples:
        try:
            found[task] = read_outcomes(run.samples.stream(task), run.judges(task))
        except (KeyError, TypeError, AttributeError) as error:
            file = outputs_file(run.directory, run.subject, task)
            raise UserError(f"{file}: a line is not that of an output ({type(error).__name__} {error}).") from error
    return {task: outcomes for task, outcomes in found.items() if outcomes is not None}


def _judge_notes(runs: Sequence[FinishedEvaluation]) -> Iterator[str]:
    """Yields the sentences of the runs' judges on what kind of measure they are, as far as these judges are here."""
    for name in dict.fromkeys(str(run.config["judge"]["name"]) for run in runs):
        with suppress(UserError):  # a judge from outside that is not installed here
            note = JUDGES.get(name).note
            if isinstance(note, str):  # of others it depends on their model
                yield note


def _models(runs: Sequence[FinishedEvaluation], outcomes: Sequence[Outcomes]) -> list[Compared]:
    common = [task for task in runs[0].estimates if all(task in run.estimates for run in runs)]
    models = []
    for index, (run, name, own) in enumerate(zip(runs, names(runs), outcomes, strict=True)):
        heads = {
            measure.metric: macro([run.estimates[task][measure.metric] for task in tasks])
            for measure in ALL_MEASURES
            if (tasks := [task for task in common if _has(run, task, measure)])
        }
        models.append(
            Compared(
                letter=_letter(index),
                name=name,
                directory=run.given,
                facts=facts(run),
                estimates=run.estimates,
                headline={metric: one for metric, one in heads.items() if one.value is not None},
                kinds=run.kinds,
                tax=run.tax,
                budget=run.budget,
                mean_tokens={task: found.mean_tokens for task, found in own.items()},
            )
        )
    return models


def _letter(index: int) -> str:
    """Returns A … Z, then AA, AB …."""
    letters = ""
    while index >= 0:
        index, last = divmod(index, 26)
        letters, index = chr(ord("A") + last) + letters, index - 1
    return letters


def _has(run: FinishedEvaluation, task: str, measure: Measure) -> bool:
    return run.kinds.get(task) == measure.kind.name and measure.metric in run.estimates[task]


def _differences(a: Compared, b: Compared, paired: Mapping[str, list[PairedTask]]) -> Iterator[Difference]:
    """Yields the differences of two models: for each rate its headline over the paired tasks, then these tasks."""
    for measure in ALL_MEASURES:
        own = {task: pair for task, pairs in paired.items() for pair in pairs if pair.measure == measure}
        if own and len({pair.judge for pair in own.values()}) == 1:
            yield _difference(a, b, HEADLINE, measure.headline, list(own.values()))
        for task, pair in own.items():
            yield _difference(a, b, task, measure.metric, [pair])


def _difference(a: Compared, b: Compared, task: str, metric: str, paired: Sequence[PairedTask]) -> Difference:
    ups, downs = zip(*(changes(one) for one in paired), strict=True)
    first, second = ([one.a for one in paired], [one.b for one in paired])
    found, p = difference(paired)
    return Difference(
        a=a.letter,
        b=b.letter,
        task=task,
        measure=paired[0].measure,
        metric=metric,
        judge=paired[0].judge,
        rates=(_mean(first), _mean(second)),
        difference=found,
        p=p,
        changed=(sum(ups), sum(downs)),
    )


def _mean(outcomes: Sequence[Mapping[str, Sequence[bool]]]) -> Estimate:
    return macro([rate(list(of_task.values())) for of_task in outcomes])


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Returns the differences with p-values adjusted for their number; the headline of a single task is no second test."""
    tasks = Counter((one.a, one.b, one.measure) for one in differences if one.task != HEADLINE)

    def test_of(one: Difference) -> tuple[str, str, Measure, bool | str]:
        return one.a, one.b, one.measure, tasks[one.a, one.b, one.measure] == 1 or one.task

    tests = {test_of(one): one.p for one in differences}
    together = dict(zip(tests, adjusted(list(tests.values()), _ADJUSTMENT), strict=True))
    return [replace(one, adjusted=together[test_of(one)]) for one in differences]


# --- Warnings -------------------------------------------------------------------------------------------------------------


def _left_out(runs: Sequence[FinishedEvaluation], models: Sequence[Compared]) -> Iterator[str]:
    """Yields a sentence on the tasks that not every model has, which no headline of the models holds."""
    tasks = dict.fromkeys(task for run in runs for task in run.estimates)
    missing = {
        task: [model.letter for model in models if task not in model.estimates]
        for task in tasks
        if any(task not in model.estimates for model in models)
    }
    if missing:
        listed = "; ".join(f"{task} (not measured: {', '.join(letters)})" for task, letters in missing.items())
        yield f"Not in the headlines, because not every model was measured on it: {listed}."


def _pair_warnings(
    runs: tuple[FinishedEvaluation, FinishedEvaluation],
    models: tuple[Compared, Compared],
    outcomes: tuple[Outcomes, Outcomes],
    paired: Mapping[str, list[PairedTask]],
) -> Iterator[str]:
    """Yields sentences on what else than the models differs between two runs."""
    letters = " and ".join(model.letter for model in models)
    if differing := list(_settings_that_differ(*runs)):
        yield f"{letters} were not measured alike: {'; '.join(differing)}."
    bases = [run.base_hash for run in runs]
    if None not in bases and bases[0] != bases[1]:
        yield f"{letters} were trained from different models: their difference is not that of the training alone."
    for task, pairs in paired.items():
        if not pairs:
            continue
        pair = pairs[0]
        capped = capped_difference(outcomes[0][task], outcomes[1][task])
        if (capped.low is not None and capped.low > 0) or (capped.high is not None and capped.high < 0):
            first, second = (_share(outcomes[side][task].cap_hit_rate) for side in (0, 1))
            yield (
                f"{task}: {first} of the outputs of {models[0].letter} and {second} of those of {models[1].letter} ran into "
                "the token budget; part of their difference may be the budget's."
            )
        if pair.num_other_prompts:
            yield f"{task}, {letters}: {pair.num_other_prompts} problems of one id have different prompts and were left out."
        if pair.num_unpaired:
            yield f"{task}, {letters}: {pair.num_unpaired} problems that only one of them was given were left out."


def _share(estimate: Estimate) -> str:
    return f"{100 * (estimate.value or 0.0):.1f} %"


def _settings_that_differ(a: FinishedEvaluation, b: FinishedEvaluation) -> Iterator[str]:
    """Yields each setting that determines outputs and differs between two runs; of a private one only that it does."""
    for key, known in keys().items():
        section, _, name = key.partition(".")
        if key in _SAME_SUBJECT or section not in ("evaluation", "engine") or "evaluate" not in known.facts["hashed"]:
            continue
        here, there = (run.config.get(section, {}).get(name, known.default) for run in (a, b))
        if here != there:
            yield f"{key} differs" if is_private(key) else f"{key} is {_shown(here)} and {_shown(there)}"


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def default_folder(given: Sequence[str], below: Path = Path("runs")) -> Path:
    """Returns where a comparison of these run directories goes that names no folder; the same for the same runs."""
    return below / f"compare-{content_hash([str(local_path(one).resolve()) for one in given])[:12]}"


def _clear(out: Path) -> None:
    """Deletes what an earlier comparison left in a folder: it may have had more models, and figures that this one has not."""
    if (out / PAIRS).exists():
        (out / PAIRS).unlink()
        for figure in (out / FIGURES).glob("*.svg"):
            figure.unlink()


def _check_out(out: Path) -> None:
    """Raises a UserError where the files of a comparison cannot go into a folder, before anything is computed."""
    if exists(out) and not out.is_dir():
        raise UserError(f"out={out}: a file lies there; name a folder.")
    if exists(out / ".run.json"):
        raise UserError(f"out={out}: that is a run directory; name another folder.")
