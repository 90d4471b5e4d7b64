"""What a run's page shows of the texts: rewrites that were kept, those that failed each check, and outputs of the models.

A run may have 40,000 examples and several tries of each, so files are read through line by line and only what is shown is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.engines.engine import STOP
from dgr_lightning.evaluation.subjects import SUBJECTS, outputs_file
from dgr_lightning.files import read_jsonl
from dgr_lightning.report.summary import Summary
from dgr_lightning.tasks.metrics import KINDS

# --- Rewrites -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rewrite:
    """A rewrite beside its source.

    Attributes:
        id: the example's.
        label: its label.
        prompt: its prompt.
        note: what else there is to say of it.
        parts: (name, source, rewrite); a rewrite of None was not kept.
    """

    id: str
    label: str
    prompt: str
    note: str
    parts: list[tuple[str, str, str | None]]


@dataclass(frozen=True)
class CheckShown:
    """A check of quality control: how many rewrites it was asked about, how many failed it, and the first few of these."""

    name: str
    num_judged: int
    num_failed: int
    rewrites: list[Rewrite]


def kept_rewrites(run_dir: Path, num_each: int = 2) -> list[Rewrite]:
    """Returns the first `num_each` rewrites of each label that were kept as they should be."""
    chosen: list[dict[str, Any]] = []
    counts = Counter[str]()
    for row in _rows(run_dir / "refined.jsonl"):
        if row["refined"] and row["reason"] is None and counts[row["label"]] < num_each:
            counts[row["label"]] += 1
            chosen.append(row)
    sources = _sources(run_dir, {row["id"] for row in chosen})
    return [
        Rewrite(
            row["id"], row["label"], row["prompt"], "kept", [(part, source[part], row[part]) for part in ("trace", "answer")]
        )
        for row in chosen
        if (source := sources.get(row["id"])) is not None
    ]


def checks_shown(run_dir: Path, num_each: int = 3) -> list[CheckShown]:
    """Returns every check that was asked, with the first `num_each` rewrites that failed it, in the order of the file."""
    judged, failed = Counter[str](), Counter[str]()
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(run_dir / "stages" / "verdicts.jsonl"):
        for name, has_failed in row["checks"].items():
            judged[name] += 1
            failed[name] += has_failed
            if has_failed and failed[name] <= num_each:
                verdicts.setdefault(name, []).append(row)
    sources = _sources(run_dir, {row["id"] for rows in verdicts.values() for row in rows})
    return [
        CheckShown(
            name,
            judged[name],
            failed[name],
            [_rejected(row, sources[row["id"]]) for row in verdicts.get(name, []) if row["id"] in sources],
        )
        for name in judged
    ]


def _rejected(verdict: Mapping[str, Any], source: Mapping[str, Any]) -> Rewrite:
    part = verdict["part"]
    # A step that asks for both at once is called otherwise.
    original = source[part] if part in ("trace", "answer") else f"{source['trace']}\n\n{source['answer']}".strip()
    failed = ", ".join(name.replace("_", " ") for name, has_failed in verdict["checks"].items() if has_failed)
    note = f"failed: {failed} · try {verdict['attempt'] + 1} · {verdict['num_tokens']:,} tokens"
    return Rewrite(source["id"], source["label"], source["prompt"], note, [(part, original, verdict["text"])])


def _sources(run_dir: Path, ids: set[str]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in _rows(run_dir / "stages" / "sources.jsonl") if row["id"] in ids}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from read_jsonl(path)


# --- Outputs --------------------------------------------------------------------------------------------------------------

Rows = dict[tuple[str, int], dict[str, Any]]


@dataclass(frozen=True)
class OutputPair:
    """One sample of a problem, as the models answered it: `outputs` holds subject → line of `<task>.jsonl`."""

    change: str
    prompt: str
    gold: str | None
    outputs: dict[str, dict[str, Any]]


def outputs(run_dir: Path, summary: Summary) -> dict[str, dict[str, Rows]]:
    """Returns task → subject → (id, sample) → line, as far as it is on disk."""
    found: dict[str, dict[str, Rows]] = {}
    for subject in SUBJECTS:
        for task in summary.get(subject, {}).get("tasks", {}):
            path = outputs_file(run_dir, subject, task)
            if path.exists():
                found.setdefault(task, {})[subject] = {(row["id"], row["sample"]): row for row in read_jsonl(path)}
    return found


def length_cells(sides: Mapping[str, Rows]) -> list[str]:
    """Returns mean tokens and the verdicts of the finished outputs alone, `base → tuned`."""
    tokens, finished = [], []
    for rows in sides.values():
        tokens.append(f"{sum(row['num_tokens'] for row in rows.values()) / len(rows):,.0f}")
        verdicts = [row[KINDS[row["kind"]].verdict] for row in rows.values() if row["finish_reason"] == STOP]
        finished.append(f"{100 * sum(verdicts) / len(verdicts):.1f}" if verdicts else "–")
    return [" → ".join(tokens), " → ".join(finished)]


def choose_outputs(sides: Mapping[str, Rows], num_each: int = 1, num_same: int = 1) -> Iterator[OutputPair]:
    """Yields a few samples of a task: for each change of the verdict `num_each`, and `num_same` where it did not change."""
    counts: dict[str, int] = {}
    first = next(iter(sides.values()))
    pairs = []
    for key, row in first.items():
        outputs = {side: rows[key] for side, rows in sides.items() if key in rows}
        verdicts = [_verdict(output) for output in outputs.values()]
        change = " → ".join(dict.fromkeys(verdicts))
        most = num_each if len(set(verdicts)) > 1 else num_same
        if counts.get(change, 0) < most:
            counts[change] = counts.get(change, 0) + 1
            pairs.append(OutputPair(change, row["prompt"], row.get("gold"), outputs))
    yield from sorted(pairs, key=lambda pair: "→" not in pair.change)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["kind"] == "reasoning":
        return "right" if row["correct"] else "wrong"
    return "refused" if row["refused"] else "not refused"
