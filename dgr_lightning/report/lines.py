"""A summary line by line: results with the difference that training made, health of the outputs, facts of the run.

The terminal's tables and the page show the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.number_format import UNDEFINED, nats
from dgr_lightning.report.estimates import estimate_of, number, without_interval
from dgr_lightning.report.summary import Summary
from dgr_lightning.statistics.intervals import Estimate, difference
from dgr_lightning.tasks.metrics import HEALTH, KINDS

TITLES = {"reasoning": "reasoning", "harmful": "refusal", "benign": "over-refusal"}
HEALTH_TITLES = {"cap_hit_rate": "cut off", "missing_thinking_rate": "no thinking", "early_stop_rate": "stopped early"}
PART_TITLES = {"trace": "trace", "answer": "answer", "both": "whole target"}
SIMILARITY_TITLES = {"rewrites": "source and rewrite", "outputs": "outputs of base and tuned"}
# Whether a higher rate is better.
_WANTED = {"reasoning": True, "harmful": True, "benign": False}


@dataclass(frozen=True)
class ResultLine:
    """A line of the results: the headline of a kind of task, or one task.

    Attributes:
        title: what is measured.
        kind: reasoning, harmful, or benign.
        is_headline: whether it is the macro average over the tasks of the kind.
        base: rate of the model before training; None: undefined.
        tuned: rate of the trained model.
        difference: tuned minus base.
        tone: `better` or `worse`; `same` where the interval of the difference contains 0.
    """

    title: str
    kind: str
    is_headline: bool
    base: Estimate | None
    tuned: Estimate | None
    difference: Estimate | None
    tone: str


def result_lines(summary: Summary) -> Iterator[ResultLine]:
    """Yields for each kind of task that was measured its headline, undefined where a task was skipped, then its tasks.

    The difference of the reasoning headline is the safety tax with its sign turned, paired on problems; the other differences
    treat the two estimates as independent.
    """
    base, tuned = summary.get("base"), summary.get("tuned")
    for kind, names in KINDS.items():
        sides = [estimate_of(side and side["headline"][names.headline]) for side in (base, tuned)]
        if sides == [None, None] and kind not in summary.get("skipped", {}).values():
            continue
        tax = estimate_of(summary["tax"]["points"]) if kind == "reasoning" and "tax" in summary else None
        yield _result_line(TITLES[kind], kind, True, sides, None if tax is None else tax.scaled(-0.01))
        tasks = dict.fromkeys(task for side in (base, tuned) if side for task in side["tasks"])
        for task in tasks:
            sides = [estimate_of(side and side["tasks"].get(task, {}).get(names.metric)) for side in (base, tuned)]
            if sides != [None, None]:
                yield _result_line(task, kind, False, sides, None)


def _result_line(title: str, kind: str, is_headline: bool, sides: list[Estimate | None], paired: Estimate | None) -> ResultLine:
    base, tuned = sides
    change = paired
    if change is None and base is not None and tuned is not None:
        change = difference(base, tuned)
    tone = "same"
    if change is not None and change.value is not None and not _contains_zero(change):
        tone = "better" if (change.value > 0) == _WANTED[kind] else "worse"
    return ResultLine(title, kind, is_headline, base, tuned, change, tone)


def _contains_zero(estimate: Estimate) -> bool:
    return (estimate.low is None or estimate.low <= 0) and (estimate.high is None or estimate.high >= 0)


def health_lines(summary: Summary) -> Iterator[tuple[str, list[str]]]:
    """Yields for each task its cap-hit, missing-thinking and early-stop rates in per cent, `base → tuned`."""
    sides = [summary[subject]["tasks"] for subject in SUBJECTS if subject in summary]
    for task in dict.fromkeys(task for side in sides for task in side):
        cells = []
        for metric in HEALTH:
            rates = [estimate_of(side.get(task, {}).get(metric)) for side in sides]
            cells.append(" → ".join(UNDEFINED if r is None or r.value is None else f"{100 * r.value:.1f}" for r in rates))
        yield task, cells


def shift_lines(summary: Summary) -> Iterator[tuple[str, dict[str, list[Estimate | None]]]]:
    """Yields each part of an example with its `nll` and `perplexity`, before and after refinement."""
    shift = summary["shift"]
    for part, title in PART_TITLES.items():
        sides = [shift[when][part] for when in ("before", "after")]
        yield title, {name: [estimate_of(side and side[name]) for side in sides] for name in ("nll", "perplexity")}


def divergence_lines(summary: Summary) -> Iterator[tuple[str, list[Estimate | None]]]:
    """Yields each kind of prompt with both estimates of the KL divergence; nothing where it was not measured."""
    for kind, figures in (summary["shift"]["kl"] or {}).items():
        yield f"{kind} prompts", [estimate_of(figures[name]) for name in ("kl", "k3")]


def similarity_lines(summary: Summary) -> Iterator[tuple[str, str, Estimate | None]]:
    """Yields key, title and mean cosine of each comparison of texts; nothing where none was measured."""
    for key, title in SIMILARITY_TITLES.items():
        if cosine := estimate_of((summary["shift"]["similarity"] or {}).get(key)):
            yield key, title, cosine


def run_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yields name and text of each fact: several sources, rejected rows, refinement and shift, training, seconds by stage."""
    data = summary.get("data", {})
    if len(sources := data.get("sources", {})) > 1:
        counts = (", ".join(f"{name} {count}" for name, count in of.items()) for of in (sources, data["labels"]))
        yield "examples from", "; ".join(counts)
    if rejected := data.get("rejected"):
        yield "rows rejected", ", ".join(f"{reason} {count}" for reason, count in rejected.items())
    if overlap := data.get("overlap"):
        shared = ", ".join(f"{task} {count}" for task, count in overlap.items())
        yield "trained on prompts of the evaluation", f"{shared} (data.drop_overlap=true leaves them out)"
    if "refinement" in summary:
        yield from _refinement_facts(summary)
    if training := summary.get("training"):
        resumed = training["resumed_from_step"]
        yield (
            "training",
            f"{training['steps']} steps, {training['target_tokens']:,} target tokens, "
            f"loss {nats(training['loss_first'])} → {nats(training['loss_last'])}"
            + (f", {training['tokens_per_second']:,.0f} tokens/s" if training["tokens_per_second"] is not None else "")
            + (f", peak memory {training['peak_memory_bytes'] / 2**20:,.0f} MiB" if training["peak_memory_bytes"] else "")
            + _probe_fact(training)
            + (f", resumed from step {resumed}" if resumed else ""),
        )
    if seconds := summary["wall_seconds"]:
        stages = ", ".join(f"{stage.replace('_', ' ')} {value:.1f}" for stage, value in seconds.items() if stage != "total")
        yield "seconds", f"{seconds.get('total', sum(seconds.values())):.1f}: {stages}"


def _probe_fact(training: Summary) -> str:
    if not training.get("probe_share"):  # no probes, or a training of an earlier version
        return ""
    return f", probes {training['probe_seconds']:.1f} s ({training['probe_share']:.0%} of the time)"


def _refinement_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    refinement = summary["refinement"]
    examples, fallback = refinement["examples"], refinement["fallback"]
    yield "refined", f"{refinement['refined']} of {examples} examples"
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in fallback.items())
    yield "fallback", f"{sum(fallback.values())} of {examples}" + (f": {reasons}" if reasons else "")
    before, after = (nats(refinement[f"nll_{when}"]) for when in ("before", "after"))
    yield "NLL under the base", f"{before} → {after} nats per target token"
    if "shift" in summary:
        yield from _shift_facts(summary)
    yield "target tokens", f"{refinement['tokens_before']:,} → {refinement['tokens_after']:,}"


def _shift_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    lines = dict(shift_lines(summary))
    for name, title in (("nll", "NLL by part"), ("perplexity", "perplexity")):
        sides = {part: " → ".join(without_interval(number(side)) for side in figures[name]) for part, figures in lines.items()}
        yield title, ", ".join(f"{part} {text}" for part, text in sides.items())
    if similarities := [f"{title} {number(cosine)}" for _, title, cosine in similarity_lines(summary)]:
        yield "similarity", ", ".join(similarities)
    if divergences := [f"{kind} {number(kl)}" for kind, (kl, _) in divergence_lines(summary)]:
        yield "KL from the base", f"{', '.join(divergences)} nats per token"
