"""What every export of a run needs: its models, how they were asked, and their outputs, task by task."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from math import sqrt
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.errors import UserError
from dgr_lightning.evaluation.samples import Sample, subjects_of
from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.files import read_json
from dgr_lightning.report.samples import Side, side_of
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.tasks.metrics import KINDS, Kind

_SETTINGS = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "samples", "limit", "prefill")


@dataclass(frozen=True)
class Measured:
    """One model on one task.

    Attributes:
        task: its name.
        side: the model with its outputs, and how it may mark thinking.
        estimates: metric → estimate, as in summary.json.
        settings: how outputs were generated: keys of `evaluation`, of the task itself. Runs of an earlier version lack some.
    """

    task: str
    side: Side
    estimates: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]

    def rows(self) -> Iterator[Sample]:
        """Yields the outputs one by one."""
        yield from self.side.rows(self.task)

    def problems(self) -> Iterator[list[Sample]]:
        """Yields the outputs to one problem after the other."""
        for _, own in groupby(self.rows(), key=lambda row: row["id"]):
            yield list(own)

    @cached_property
    def kind(self) -> Kind:
        """The kind of the task."""
        return KINDS[next(self.rows())["kind"]]

    @cached_property
    def shares(self) -> dict[str, float]:
        """Id of a problem → share of its samples that count; problems that no judge could say anything of are left out."""
        verdicts = {own[0]["id"]: [row[self.kind.verdict] for row in own] for own in self.problems()}
        known = {name: [bool(value) for value in values if value is not None] for name, values in verdicts.items()}
        return {name: statistics.fmean(values) for name, values in known.items() if values}

    @cached_property
    def stderr(self) -> float | None:
        """Standard error of the task's metric over problems, clustered by problem; None for fewer than two of them."""
        return statistics.stdev(self.shares.values()) / sqrt(len(self.shares)) if len(self.shares) > 1 else None

    @cached_property
    def scorer(self) -> str:
        """What said whether an output counts: the grader with its version, or the judge of its metric."""
        grader = next(self.rows()).get("grader")
        return grader or self.estimates[self.kind.metric].get("judge") or self.kind.verdict

    def values(self) -> dict[str, float]:
        """Returns metric → value, the metric of the kind first, without those that are undefined."""
        ordered = {self.kind.metric: self.estimates[self.kind.metric], **self.estimates}
        return {name: estimate["value"] for name, estimate in ordered.items() if estimate["value"] is not None}


@dataclass(frozen=True)
class ExportedRun:
    """A finished run with outputs.

    Attributes:
        folder: of the run.
        summary: its summary.json.
        config: its config.yaml.
    """

    folder: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> ExportedRun:
        """Reads a run directory.

        Raises:
            UserError: no finished run is there, or it evaluated no model.
        """
        if not (folder / SUMMARY).is_file() or not (folder / "config.yaml").is_file():
            raise UserError(f"{folder}: no finished run is there; name a run directory that holds {SUMMARY}.")
        summary = read_json(folder / SUMMARY, "config_hash", "versions")
        run = cls(folder, summary, yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        if not any(run.measured(subject) for subject in run.subjects):
            raise UserError(f"{folder}: the run evaluated no model, so there is no output to export.")
        return run

    @property
    def subjects(self) -> list[str]:
        """Its models: `base`, `tuned` or both."""
        return [subject for subject in subjects_of(self.folder) if subject in self.summary]

    @cached_property
    def finished(self) -> datetime:
        """When its summary was written: exports of one run bear one date, whenever they are made."""
        return datetime.fromtimestamp(int((self.folder / SUMMARY).stat().st_mtime), UTC)

    def model_name(self, subject: str) -> str:
        """Returns what a model is called by; a training's two are told apart."""
        name = str(self.config["model"].get("name") or "model")
        return f"{name}-{subject}" if SUBJECTS[1] in self.subjects else name

    @property
    def system_prompt(self) -> str | None:
        """The system message that the run's config sets."""
        own = self.config["evaluation"].get("system_prompt")
        return self.config["model"].get("system_prompt") if own is None else own

    def measured(self, subject: str) -> list[Measured]:
        """Returns a model on every task of the summary whose outputs are on disk, in the order of the summary."""
        tasks = self.summary[subject]["tasks"]
        side = side_of(subject, self.folder, subject, tasks)
        found = []
        for task in side.tasks:
            first = next(side.rows(task), None)
            if first is not None:
                found.append(Measured(task, side, tasks[task], self._settings(task, first["kind"])))
        return found

    def _settings(self, task: str, kind: str) -> dict[str, Any]:
        section = self.config["evaluation"]
        own = section | section.get("by_kind", {}).get(kind, {}) | section.get("by_task", {}).get(task, {})
        return {name: own[name] for name in _SETTINGS if name in own}
