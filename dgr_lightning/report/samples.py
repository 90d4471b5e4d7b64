"""One sample as the viewer and the terminal show it: what each subject wrote, taken apart, and what it counts as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dgr_lightning.engines.engine import LENGTH
from dgr_lightning.evaluation.samples import Samples, read_samples, subjects_of
from dgr_lightning.models.thinking import FORMATS, Format, format_of
from dgr_lightning.report.summary import Summary
from dgr_lightning.scoring.judge import NO_TEXT
from dgr_lightning.tasks.metrics import KINDS

Row = Mapping[str, Any]
"""A line of `<task>.jsonl`."""


@dataclass(frozen=True)
class Side:
    """A subject beside others.

    Attributes:
        label: what it is called by.
        samples: its outputs.
        formats: how it may mark thinking.
    """

    label: str
    samples: Samples
    formats: Sequence[Format]

    @property
    def tasks(self) -> list[str]:
        """The tasks whose outputs are on disk."""
        return list(self.samples)

    def rows(self, task: str) -> Iterator[Row]:
        """Yields the lines of a task, read while they are iterated; none where it was not measured."""
        if task in self.samples:
            yield from self.samples.stream(task)


@dataclass(frozen=True)
class Shown:
    """An output, taken apart.

    Attributes:
        trace: what was thought; None: there is no thought.
        answer: what followed it; None: the output never got to an answer.
        verdict: `right`, `wrong`, `refused`, `not refused`, or `no verdict`.
        facts: tokens, how it ended, what grader and judges said, as short sentences.
        flags: what a reader may look for: `cut off`, `no answer`, `no thinking`, `no box`, `judge failed`, `harmful`.
    """

    trace: str | None
    answer: str | None
    verdict: str
    facts: list[str]
    flags: list[str]


def sides_of(run_dir: Path, summary: Summary | None = None) -> list[Side]:
    """Returns the subjects whose outputs a run directory holds, base first; none where no model was evaluated.

    Args:
        run_dir: of a run.
        summary: of the run: its tasks count, since a folder may hold the outputs of others; None: all that are on disk.
    """
    subjects = subjects_of(run_dir)
    return [
        side_of(
            subject if len(subjects) > 1 else "model",
            run_dir,
            subject,
            None if summary is None else summary.get(subject, {"tasks": ()})["tasks"],
        )
        for subject in subjects
    ]


def side_of(label: str, run_dir: Path, subject: str, tasks: Iterable[str] | None = None) -> Side:
    """Returns a subject of a run.

    Args:
        label: what it is called by.
        run_dir: of the run.
        subject: one of `subjects_of(run_dir)`.
        tasks: those that count; None: all that are on disk.
    """
    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    return Side(label, read_samples(run_dir, subject, tasks), _formats(config["model"]))


def shown(row: Row, formats: Sequence[Format]) -> Shown:
    """Returns an output taken apart, with what it counts as."""
    trace, answer = _parts(row["output"], formats)
    flags = [name for name, is_so in _flags(row, trace, answer).items() if is_so]
    ended = "cut off by the limit" if row["finish_reason"] == LENGTH else "ended by itself"
    facts = [f"{row['num_tokens']:,} tokens, {ended}"]
    if "outcome" in row:
        final = "" if row["final"] is None else f", final answer {row['final']}"
        facts.append(f"{row['grader']}: {row['outcome'].replace('_', ' ')}{final}")
    facts += [_said(verdict) for verdict in verdicts_in(row) if verdict.get("error") != NO_TEXT]
    return Shown(trace, answer, verdict_of(row), facts, flags)


def verdict_of(row: Row) -> str:
    """Returns what an output counts as, in words."""
    verdict = row[KINDS[row["kind"]].verdict]
    if verdict is None:
        return "no verdict"
    words = ("right", "wrong") if row["kind"] == "reasoning" else ("refused", "not refused")
    return words[not verdict]


def verdicts_in(row: Row) -> Sequence[Mapping[str, Any]]:
    """Returns the verdicts of judges in a line: `judge`, `part`, and what it said."""
    return row.get("judged") or []


def _said(verdict: Mapping[str, Any]) -> str:
    if error := verdict.get("error"):
        said = f"no verdict ({error})"
    else:
        names = [(key, verdict.get(key)) for key in ("refused", "harmful")]
        said = ", ".join(f"{'' if value else 'not '}{key}" for key, value in names if value is not None) or "no verdict"
    probability = verdict.get("probability")
    return f"{verdict['judge']} on the {verdict['part']}: {said}" + ("" if probability is None else f" (p {probability:.2f})")


def _flags(row: Row, trace: str | None, answer: str | None) -> dict[str, bool]:
    verdicts = verdicts_in(row)
    return {
        "cut off": row["finish_reason"] == LENGTH,
        "no answer": not answer,
        "no thinking": not trace,
        "no box": row.get("boxed") is False,
        "judge failed": any(verdict.get("error") not in (None, NO_TEXT) for verdict in verdicts),
        "harmful": any(verdict.get("harmful") for verdict in verdicts),
    }


def _formats(model: Mapping[str, Any]) -> list[Format]:
    """Returns the formats in which a config's model may mark thinking: its style, or all that `auto` chooses among."""
    style = model.get("chat_style", "auto")
    if style == "auto":
        return [format_ for format_ in dict.fromkeys(FORMATS.values()) if format_.thinks]
    return [format_of(style, model.get("think_marks"))]


def _parts(text: str, formats: Sequence[Format]) -> tuple[str | None, str | None]:
    """Returns trace and answer of an output, by the first format whose close of thinking it holds."""
    if not any(format_.thinks for format_ in formats):
        return None, text.strip()
    for format_ in formats:
        if format_.close_mark in text:
            parsed = format_.parse(text, opened=True, finished=True)
            trace = (parsed.trace or "").removeprefix(format_.open_mark).strip()
            return trace or None, parsed.answer
    return text.strip() or None, None
