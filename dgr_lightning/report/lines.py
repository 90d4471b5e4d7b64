"""What a summary says, line by line: results with the difference that training made, the rates beside them, facts of the run.

The terminal's table and the report's page show the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.report.summary import Summary
from dgr_lightning.statistics.intervals import Estimate, difference
from dgr_lightning.tasks.metrics import HEALTH, KINDS

TITLES = {"reasoning": "reasoning", "harmful": "refusal", "benign": "over-refusal"}
HEALTH_TITLES = {"cap_hit_rate": "cut off", "missing_thinking_rate": "no thinking", "early_stop_rate": "stopped early"}
PART_TITLES = {"trace": "trace", "answer": "answer", "both": "whole target"}
SIMILARITY_TITLES = {"rewrites": "source and rewrite", "outputs": "outputs of base and tuned"}
# Whether more of it is better.
_WANTED = {"reasoning": True, "harmful": True, "benign": False}


@dataclass(frozen=True)
class Row:
    """A line of the table: a headline, or one task of its kind.

    Attributes:
        title: what is measured.
        kind: reasoning, harmful, or benign.
        is_headline: whether it is the macro average over the tasks of the kind.
        base: the measure of the model before training; None: undefined.
        tuned: that of the tuned one.
        difference: tuned minus base.
        tone: `better`, `worse`, or `same` where the interval of the difference holds 0.
    """

    title: str
    kind: str
    is_headline: bool
    base: Estimate | None
    tuned: Estimate | None
    difference: Estimate | None
    tone: str


def result_rows(summary: Summary) -> Iterator[Row]:
    """Yields the table of a summary: for each kind that was measured its headline, then its tasks.

    The difference of the reasoning headline is the safety tax, paired on problems; the others compare two intervals.
    """
    base, tuned = summary.get("base"), summary.get("tuned")
    for kind, names in KINDS.items():
        sides = [measure_of(side and side["headline"][names.headline]) for side in (base, tuned)]
        if sides == [None, None]:
            continue
        tax = measure_of(summary["tax"]["points"]) if kind == "reasoning" and "tax" in summary else None
        yield _row(TITLES[kind], kind, True, sides, None if tax is None else tax.scaled(-0.01))
        tasks = dict.fromkeys(task for side in (base, tuned) if side for task in side["tasks"])
        for task in tasks:
            sides = [measure_of(side and side["tasks"].get(task, {}).get(names.metric)) for side in (base, tuned)]
            if sides != [None, None]:
                yield _row(task, kind, False, sides, None)


def health_rows(summary: Summary) -> Iterator[tuple[str, list[str]]]:
    """Yields for each task its cap-hit, missing-thinking and early-stop rates in per cent, `base → tuned`."""
    sides = [summary[subject]["tasks"] for subject in SUBJECTS if subject in summary]
    for task in dict.fromkeys(task for side in sides for task in side):
        cells = []
        for metric in HEALTH:
            measures = [measure_of(side.get(task, {}).get(metric)) for side in sides]
            cells.append(" → ".join("–" if m is None or m.value is None else f"{100 * m.value:.1f}" for m in measures))
        yield task, cells


def measure_of(value: Mapping[str, Any] | None) -> Estimate | None:
    """Returns a measure from its JSON; None where it is undefined."""
    return None if value is None or value["value"] is None else Estimate(**value)


def percent(measure: Estimate | None) -> str:
    """Returns a rate as `98.7 (97.1–99.4)`, in per cent."""
    if measure is None or measure.value is None:
        return "–"
    if measure.low is None or measure.high is None:
        return f"{100 * measure.value:.1f}"
    return f"{100 * measure.value:.1f} ({100 * measure.low:.1f}–{100 * measure.high:.1f})"


def signed(measure: Estimate | None, scale: float = 100.0) -> str:
    """Returns a difference as `−0.5 (−1.2, +0.3)`."""
    if measure is None or measure.value is None:
        return "–"
    values = [scale * value for value in (measure.value, measure.low, measure.high) if value is not None]
    texts = [f"{value + 0.0:+.1f}".replace("-", "−") for value in values]
    return texts[0] if len(texts) < 3 else f"{texts[0]} ({texts[1]}, {texts[2]})"


def plain(measure: Estimate | None) -> str:
    """Returns a number with its interval as `0.153 (0.140 to 0.166)`; large numbers without decimals."""
    if measure is None or measure.value is None:
        return "–"
    places = 3 if abs(measure.value) < 100 else 0
    texts = [
        f"{value + 0.0:,.{places}f}".replace("-", "−")
        for value in (measure.value, measure.low, measure.high)
        if value is not None
    ]
    return texts[0] if len(texts) < 3 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def shift_rows(summary: Summary) -> Iterator[tuple[str, dict[str, list[Estimate | None]]]]:
    """Yields each part of an example with its `nll` and `perplexity`, before and after refinement."""
    shift = summary["shift"]
    for part, title in PART_TITLES.items():
        sides = [shift[when][part] for when in ("before", "after")]
        yield title, {name: [measure_of(side and side[name]) for side in sides] for name in ("nll", "perplexity")}


def divergence_rows(summary: Summary) -> Iterator[tuple[str, list[Estimate | None]]]:
    """Yields each kind of prompt with both estimates of the KL divergence; nothing where it was not measured."""
    for kind, figures in (summary["shift"]["kl"] or {}).items():
        yield f"{kind} prompts", [measure_of(figures[name]) for name in ("kl", "k3")]


def similarity_rows(summary: Summary) -> Iterator[tuple[str, str, Estimate | None]]:
    """Yields the key and the title of what was compared, with the mean cosine; nothing where it was not measured."""
    for key, title in SIMILARITY_TITLES.items():
        if measure := measure_of((summary["shift"]["similarity"] or {}).get(key)):
            yield key, title, measure


def run_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yields what refinement, training and the clock say, as name and text."""
    if rejected := summary.get("data", {}).get("rejected"):
        yield "rows rejected", ", ".join(f"{reason} {count}" for reason, count in rejected.items())
    if refinement := summary.get("refinement"):
        examples, fallback = refinement["examples"], refinement["fallback"]
        yield "refined", f"{refinement['refined']} of {examples} examples"
        reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in fallback.items())
        num_fallback = sum(fallback.values())
        yield "fallback", f"{num_fallback} of {examples}" + (f": {reasons}" if reasons else "")
        before, after = (_nats(refinement[f"nll_{when}"]) for when in ("before", "after"))
        yield "NLL under the base", f"{before} → {after} nats per target token"
        if "shift" in summary:
            yield from _shift_facts(summary)
        yield "target tokens", f"{refinement['tokens_before']:,} → {refinement['tokens_after']:,}"
    if training := summary.get("training"):
        resumed = training["resumed_from_step"]
        yield (
            "training",
            f"{training['steps']} steps, {training['target_tokens']:,} target tokens, "
            f"loss {_nats(training['loss_first'])} → {_nats(training['loss_last'])}"
            + (f", {training['tokens_per_second']:,.0f} tokens/s" if training["tokens_per_second"] is not None else "")
            + (f", peak memory {training['peak_memory_bytes'] / 2**20:,.0f} MiB" if training["peak_memory_bytes"] else "")
            + (f", resumed from step {resumed}" if resumed else ""),
        )
    if seconds := summary["wall_seconds"]:
        stages = ", ".join(f"{stage.replace('_', ' ')} {value:.1f}" for stage, value in seconds.items() if stage != "total")
        yield "seconds", f"{seconds.get('total', sum(seconds.values())):.1f}: {stages}"


def _shift_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    rows = dict(shift_rows(summary))
    for name, title in (("nll", "NLL by part"), ("perplexity", "perplexity")):
        parts = [f"{part} {' → '.join(plain(side).split(' (')[0] for side in figures[name])}" for part, figures in rows.items()]
        yield title, ", ".join(parts)
    if likenesses := [f"{title} {plain(measure)}" for _, title, measure in similarity_rows(summary)]:
        yield "similarity", ", ".join(likenesses)
    if divergences := [f"{kind} {plain(kl)}" for kind, (kl, _) in divergence_rows(summary)]:
        yield "KL from the base", f"{', '.join(divergences)} nats per token"


def _row(title: str, kind: str, is_headline: bool, sides: list[Estimate | None], paired: Estimate | None) -> Row:
    base, tuned = sides
    between = paired
    if between is None and base is not None and tuned is not None:
        between = difference(base, tuned)
    tone = "same"
    if between is not None and between.value is not None and not _holds_zero(between):
        tone = "better" if (between.value > 0) == _WANTED[kind] else "worse"
    return Row(title, kind, is_headline, base, tuned, between, tone)


def _holds_zero(measure: Estimate) -> bool:
    return (measure.low is None or measure.low <= 0) and (measure.high is None or measure.high >= 0)


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
