"""Texts for the page of a run: rewrites that were kept, rewrites that failed each check, and outputs of the models.

A run may have 40,000 examples and several tries of each, so files are streamed and only the texts shown stay in memory.
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
from dgr_lightning.number_format import UNDEFINED
from dgr_lightning.report.summary import Summary
from dgr_lightning.tasks.metrics import KINDS

# --- Rewrites -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rewrite:
    """A rewrite beside its source.

    Attributes:
        id: of the example.
        label: of the example.
        prompt: of the example.
        note: `kept`, or the checks that failed.
        parts: (name, source, rewrite); None where the text of the rewrite was not stored.
    """

    id: str
    label: str
    prompt: str
    note: str
    parts: list[tuple[str, str, str | None]]


@dataclass(frozen=True)
class QualityCheck:
    """A check of quality control: how many rewrites it judged, how many failed, and the first few of those that failed."""

    name: str
    num_judged: int
    num_failed: int
    rewrites: list[Rewrite]


def kept_rewrites(run_dir: Path, num_each: int = 2) -> list[Rewrite]:
    """Returns the first `num_each` rewrites of each label that passed every check in full."""
    chosen: list[dict[str, Any]] = []
    counts = Counter[str]()
    for refined in _read(run_dir / "refined.jsonl"):
        if refined["refined"] and refined["reason"] is None and counts[refined["label"]] < num_each:
            counts[refined["label"]] += 1
            chosen.append(refined)
    sources = _sources(run_dir, {refined["id"] for refined in chosen})
    return [_kept(refined, sources[refined["id"]]) for refined in chosen if refined["id"] in sources]


def _kept(refined: Mapping[str, Any], source: Mapping[str, Any]) -> Rewrite:
    parts = [(part, source[part], refined[part]) for part in ("trace", "answer")]
    return Rewrite(refined["id"], refined["label"], refined["prompt"], "kept", parts)


def quality_checks(run_dir: Path, num_each: int = 3) -> list[QualityCheck]:
    """Returns every check that ran, with the first `num_each` rewrites that failed it, in the order of the file."""
    judged, failed = Counter[str](), Counter[str]()
    shown: dict[str, list[dict[str, Any]]] = {}
    for verdict in _read(run_dir / "stages" / "verdicts.jsonl"):
        for name, has_failed in verdict["checks"].items():
            judged[name] += 1
            failed[name] += has_failed
            verdicts = shown.setdefault(name, [])
            if has_failed and len(verdicts) < num_each:
                verdicts.append(verdict)
    sources = _sources(run_dir, {verdict["id"] for verdicts in shown.values() for verdict in verdicts})
    return [
        QualityCheck(
            name,
            judged[name],
            failed[name],
            [_failed(verdict, sources[verdict["id"]]) for verdict in verdicts if verdict["id"] in sources],
        )
        for name, verdicts in shown.items()
    ]


def _failed(verdict: Mapping[str, Any], source: Mapping[str, Any]) -> Rewrite:
    part = verdict["part"]
    # A step that rewrites trace and answer in one generation has another name.
    original = source[part] if part in ("trace", "answer") else f"{source['trace']}\n\n{source['answer']}".strip()
    failed = ", ".join(name.replace("_", " ") for name, has_failed in verdict["checks"].items() if has_failed)
    note = f"failed: {failed} · try {verdict['attempt'] + 1} · {verdict['num_tokens']:,} tokens"
    return Rewrite(source["id"], source["label"], source["prompt"], note, [(part, original, verdict["text"])])


def _sources(run_dir: Path, ids: set[str]) -> dict[str, dict[str, Any]]:
    return {source["id"]: source for source in _read(run_dir / "stages" / "sources.jsonl") if source["id"] in ids}


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from read_jsonl(path)


# --- Outputs --------------------------------------------------------------------------------------------------------------

Samples = dict[tuple[str, int], dict[str, Any]]
"""(id, sample) → line of `<task>.jsonl`."""


@dataclass(frozen=True)
class OutputPair:
    """One sample of a problem, as each model answered it: `outputs` holds subject → line of `<task>.jsonl`."""

    change: str
    prompt: str
    gold: str | None
    outputs: dict[str, dict[str, Any]]


def read_outputs(run_dir: Path, summary: Summary) -> dict[str, dict[str, Samples]]:
    """Returns task → subject → samples, of the tasks whose outputs are on disk."""
    found: dict[str, dict[str, Samples]] = {}
    for subject in SUBJECTS:
        for task in summary.get(subject, {}).get("tasks", {}):
            path = outputs_file(run_dir, subject, task)
            if path.exists():
                found.setdefault(task, {})[subject] = {(row["id"], row["sample"]): row for row in read_jsonl(path)}
    return found


def length_cells(sides: Mapping[str, Samples]) -> list[str]:
    """Returns the mean number of tokens, and the rate of positive verdicts among finished outputs, `base → tuned`."""
    tokens, finished = [], []
    for samples in sides.values():
        outputs = list(samples.values())
        tokens.append(f"{sum(output['num_tokens'] for output in outputs) / len(outputs):,.0f}")
        said = (output[KINDS[output["kind"]].verdict] for output in outputs if output["finish_reason"] == STOP)
        verdicts = [verdict for verdict in said if verdict is not None]  # None: no judge could say
        finished.append(f"{100 * sum(verdicts) / len(verdicts):.1f}" if verdicts else UNDEFINED)
    return [" → ".join(tokens), " → ".join(finished)]


def choose_outputs(sides: Mapping[str, Samples], num_each: int = 1, num_same: int = 1) -> Iterator[OutputPair]:
    """Yields a few samples of a task, changed verdicts first: `num_each` per change, `num_same` per verdict that stayed."""
    counts = Counter[str]()
    first = next(iter(sides.values()))
    pairs = []
    for key, sample in first.items():
        outputs = {side: samples[key] for side, samples in sides.items() if key in samples}
        verdicts = [_verdict(output) for output in outputs.values()]
        change = " → ".join(dict.fromkeys(verdicts))
        most = num_each if len(set(verdicts)) > 1 else num_same
        if counts[change] < most:
            counts[change] += 1
            pairs.append(OutputPair(change, sample["prompt"], sample.get("gold"), outputs))
    yield from sorted(pairs, key=lambda pair: "→" not in pair.change)


def _verdict(output: Mapping[str, Any]) -> str:
    if output["kind"] == "reasoning":
        return "right" if output["correct"] else "wrong"
    return {True: "refused", False: "not refused", None: "no verdict"}[output["refused"]]
