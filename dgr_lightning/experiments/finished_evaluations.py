"""Finished runs that measured a model, found by their directories: trainings, whose tuned model counts, and evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.errors import UserError
from dgr_lightning.evaluation.samples import Samples, read_samples
from dgr_lightning.evaluation.subjects import BASE, SUBJECTS, TUNED
from dgr_lightning.files import exists, local_path, read_json
from dgr_lightning.installation import script_name
from dgr_lightning.models.folder import ADAPTER_CONFIG
from dgr_lightning.report.estimates import estimate_of
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import Estimates

_CONFIG, _RUN = "config.yaml", ".run.json"
_SEPARATES = (
    "refine.name",
    "data.name",
    "tuning.method",
    "tuning.rank",
    "sft.lr",
    "sft.epochs",
    "sft.max_steps",
    "sft.batch_size",
    "sft.optimizer",
    "data.limit",
    "data.benign_ratio",
    "model.seed",
    "refine.seed",
    "seed",
)
"""Keys that tell trainings apart, in the order in which a name holds those that differ."""

_REFINEMENT = "refinement"
_TITLES = {
    "refine.name": _REFINEMENT,
    "data.name": "data",
    "tuning.method": "tuning",
    "tuning.rank": "rank",
    "sft.lr": "learning rate",
    "sft.epochs": "epochs",
    "sft.batch_size": "batch size",
    "sft.optimizer": "optimizer",
    "model.seed": "seed of the miniature",
}
"""Key → what people call it, where that is another word."""


@dataclass(frozen=True)
class FinishedEvaluation:
    """A finished run, and the model of it that a comparison is about: the tuned one, or the only one.

    Attributes:
        given: the directory as the user named it.
        directory: the run directory.
        config: its resolved config.
        summary: its summary.json.
    """

    given: str
    directory: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """`tuned` of a training, `base` of an evaluation."""
        return TUNED if TUNED in self.summary else BASE

    @property
    def is_training(self) -> bool:
        """Whether the run trained the model."""
        return self.subject == TUNED

    @cached_property
    def estimates(self) -> Estimates:
        """Task → metric → estimate, as far as they are defined."""
        tasks = self.summary[self.subject]["tasks"]
        found = {
            task: {metric: estimate_of(_plain(record)) for metric, record in metrics.items()} for task, metrics in tasks.items()
        }
        return {task: {metric: one for metric, one in metrics.items() if one is not None} for task, metrics in found.items()}

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Task → name of its kind, of the tasks that were measured, as their outputs say it."""
        found = {task: next(self.samples.stream(task), None) for task in self.samples}
        return {task: str(sample["kind"]) for task, sample in found.items() if sample is not None}

    def judges(self, task: str) -> dict[str, str]:
        """Returns metric → judge of a task's rates: the one that the summary names beside a rate, else the run's."""
        metrics = self.summary[self.subject]["tasks"][task]
        return {metric: str((record or {}).get("judge") or self.config["judge"]["name"]) for metric, record in metrics.items()}

    @property
    def samples(self) -> Samples:
        """The outputs of the model, on the tasks of the summary."""
        return read_samples(self.directory, self.subject, self.summary[self.subject]["tasks"])

    @property
    def tax(self) -> Estimate | None:
        """The safety tax of a training, in points."""
        return estimate_of(_plain(self.summary["tax"]["points"])) if "tax" in self.summary else None

    @property
    def budget(self) -> list[tuple[int, Estimate]]:
        """Reasoning accuracy over smaller token budgets, from the run's budget.json; nothing in a run that has none."""
        file = self.directory / "evaluation" / "budget.json"
        curve = read_json(file).get("headline") if file.exists() else None
        if curve is None or self.subject not in curve:
            return []
        found = zip(curve["caps"], map(estimate_of, map(_plain, curve[self.subject])), strict=True)
        return [(int(cap), estimate) for cap, estimate in found if estimate is not None]

    @property
    def origin(self) -> Mapping[str, Any]:
        """The config that tells where the model comes from: that of its training, also where it was measured later."""
        if not self.is_training and (trained := trained_by(self.config["model"].get("path"))) is not None:
            return trained
        return self.config

    @cached_property
    def base_hash(self) -> str | None:
        """Content hash of the model that a training began with; None where it is not known, and of an evaluation."""
        file = self.directory / _RUN
        return str(read_json(file).get("model")) if self.is_training and file.exists() else None


def trained_by(model_path: str | None) -> Mapping[str, Any] | None:
    """Returns the config of the training whose `model/` a path names; None where it is no such folder."""
    if model_path is None:
        return None
    run = local_path(model_path).resolve().parent
    if local_path(model_path).name != "model" or not (run / _CONFIG).is_file() or not (run / "stages" / "train.json").is_file():
        return None
    return _config(run)


def find_runs(given: Sequence[str]) -> list[FinishedEvaluation]:
    """Returns the runs of a command line, in its order.

    Raises:
        UserError: a directory is no finished run that measured a model, one is named twice, or there are fewer than two.
    """
    if len(given) < 2:
        started = script_name("compare")
        said = "nothing is named" if not given else f"one run is named, {given[0]}"
        raise UserError(
            f"{started}: {said}, and a comparison takes two or more: {started} RUN RUN. The report.html of a single training "
            "shows its base beside its tuned model."
        )
    runs = [_finished(one) for one in given]
    places: dict[Path, str] = {}
    for run in runs:
        place = run.directory.resolve()
        if place in places:
            raise UserError(f"{run.given}: the same run as {places[place]}; name each run once.")
        places[place] = run.given
    return runs


def _finished(given: str) -> FinishedEvaluation:
    """Returns a finished run; raises a UserError that says what the directory is instead, and what to name."""
    directory = local_path(given)
    if not exists(directory):
        raise UserError(
            f"{given}: there is no such directory (looked in {Path.cwd()}). Name finished runs, such as runs/dgr/…."
        )
    if not directory.is_dir():
        raise UserError(f"{given}: a file. Name the run directory that it lies in.")
    if not (directory / SUMMARY).is_file():
        raise UserError(f"{given}: {_no_run(directory, given)}")
    summary, config = read_json(directory / SUMMARY, "schema", "wall_seconds"), _config(directory)
    if BASE not in summary and TUNED not in summary:
        raise UserError(
            f"{given}: a finished refinement, which measured no model. Train on its set with {script_name('train')}, or name a "
            f"run of {script_name('train')} or {script_name('evaluate')}."
        )
    if not all(
        isinstance(summary[one], dict) and isinstance(summary[one].get("tasks"), dict) for one in SUBJECTS if one in summary
    ):
        raise UserError(f"{given}: its {SUMMARY} is not that of a run. Run its command again with overwrite=true.")
    if TUNED in summary and not (directory / "stages" / "measured.json").is_file():
        raise UserError(
            f"{given}: its models are being measured anew, or that was interrupted: its summary is of the evaluation before. "
            "Run its command again, which continues it."
        )
    return FinishedEvaluation(given, directory, config, summary)


def _no_run(directory: Path, given: str) -> str:
    """Returns what a directory without a summary is, and what to write instead."""
    parent = directory.resolve().parent
    if (directory / _RUN).is_file():
        return "a run that has not finished. Run its command again, which continues it."
    if (parent / SUMMARY).is_file():
        return f"a folder inside of a run. Name the run: {Path(given).parent}."
    evaluate = script_name("evaluate")
    if (directory / "config.json").is_file() or (directory / ADAPTER_CONFIG).is_file():
        return f"a model, not a run. {evaluate} measures models and compares them: {evaluate} 'models=[{given},…]'."
    inside = sorted(path.parent for path in directory.glob(f"*/{SUMMARY}"))
    if inside:
        shown = " ".join(map(str, inside[:4])) + (" …" if len(inside) > 4 else "")
        return f"a folder of runs, no run. Name the runs: {shown}."
    return f"no finished run: there is no {SUMMARY}. Name directories of {script_name('train')} or {evaluate} runs."


def _config(directory: Path) -> dict[str, Any]:
    """Returns the resolved config of a run; raises a UserError where it cannot be read."""
    try:
        config = yaml.safe_load((directory / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{directory}: its {_CONFIG} cannot be read; every finished run has one.") from error
    if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in ("model", "evaluation", "judge")):
        raise UserError(f"{directory}: its {_CONFIG} is not the config of a run.")
    return config


def _plain(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Returns an estimate's record without what stands beside its numbers, such as the name of a judge."""
    return None if record is None else {key: record[key] for key in ("value", "low", "high", "n")}


# --- Names ----------------------------------------------------------------------------------------------------------------


def facts(run: FinishedEvaluation) -> dict[str, str]:
    """Returns what is known of a run's model: name → text."""
    origin = run.origin
    found = {"model": _model_name(origin["model"])}
    if run.is_training or origin is not run.config:
        for key in _SEPARATES:
            value = _value(origin, key)
            if value is not None and (key != "tuning.rank" or _value(origin, "tuning.method") != "full"):
                found[_TITLES.get(key, key)] = f"{value:g}" if isinstance(value, float) else str(value)
    return found


def names(runs: Sequence[FinishedEvaluation]) -> list[str]:
    """Returns a short name for each model, all different: the model, its refinement, and the facts in which they differ."""
    known = [facts(run) for run in runs]
    others = [title for key in _SEPARATES if (title := _TITLES.get(key, key)) != _REFINEMENT]
    differing = [name for name in others if len({found[name] for found in known if name in found}) > 1]
    named = []
    for found in known:
        parts = [found["model"], found.get(_REFINEMENT, "")]
        parts += [f"{name} {found[name]}" for name in differing if name in found]
        named.append(" · ".join(part for part in parts if part))
    return [
        name if named.count(name) == 1 else f"{name} · {run.directory.resolve().name[-6:]}"
        for name, run in zip(named, runs, strict=True)
    ]


def _model_name(model: Mapping[str, Any]) -> str:
    """Returns what a model is called: its short name, its id on the hub, or the last part of its folder's path."""
    if model.get("path"):
        return local_path(model["path"]).resolve().name
    return (
        str(model.get("hub_id") or model.get("name") or "model") if model.get("name") in (None, "", "local") else model["name"]
    )


def _value(config: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a dotted key; None where a config of an earlier version has none."""
    section, _, name = key.rpartition(".")
    values = config.get(section, {}) if section else config
    return values.get(name)
