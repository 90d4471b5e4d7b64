"""A summary line by line: results with the difference that training made, health of the outputs, facts of the run.

The terminal's tables and the page show the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.number_format import UNDEFINED, nats
from dgr_lightning.report.estimates import estimate_of, number, percent, without_interval
from dgr_lightning.report.summary import Summary
from dgr_lightning.statistics.intervals import Estimate, difference
from dgr_lightning.tasks.metrics import (
    ERROR_RATE,
    FINISHED,
    HARM_RATE,
    HARM_SCORE,
    HEALTH,
    KINDS,
    TOKENS,
    TRACE_HARM_RATE,
    is_at_k,
)

TITLES = {"reasoning": "reasoning", "harmful": "refusal", "benign": "over-refusal"}
JUDGED_TITLES = {HARM_RATE: "harm", TRACE_HARM_RATE: "harm in traces", HARM_SCORE: "mean score of harm"}
METRIC_TITLES = JUDGED_TITLES | {
    "refusal_rate": "refusal",
    "over_refusal_rate": "over-refusal",
    ERROR_RATE: "no verdict",
}
HEALTH_TITLES = {"cap_hit_rate": "cut off", "missing_thinking_rate": "no thinking", "early_stop_rate": "stopped early"}
BESIDE_TITLES = {
    TOKENS: "mean tokens",
    FINISHED: "right of finished",
    "unboxed_rate": "no box",
    "timeout_rate": "timed out",
    "unparsable_rate": "unparsable",
    "refused_reasoning_rate": "refused to reason",
}
_FAILURES = ("timeout_rate", "unparsable_rate")
PART_TITLES = {"trace": "trace", "answer": "answer", "both": "whole target"}
SIMILARITY_TITLES = {"rewrites": "source and rewrite", "outputs": "outputs of base and tuned"}
WANTED = {"reasoning": True, "harmful": True, "benign": False} | dict.fromkeys(JUDGED_TITLES, False)
"""Kind, or judged metric → whether a higher rate is better."""


@dataclass(frozen=True)
class ResultLine:
    """A line of the results: the headline of a kind of task, or one task.

    Attributes:
        title: what is measured.
        kind: reasoning, harmful, or benign; of what judges say of harm, the metric.
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

    @property
    def judge(self) -> str | None:
        """Whose rates they are, where a judge says them; of rates of two judges, both."""
        return " → ".join(dict.fromkeys(side.judge for side in (self.base, self.tuned) if side and side.judge)) or None


def result_lines(summary: Summary) -> Iterator[ResultLine]:
    """Yields for each kind of task that was measured its headline, undefined where a task was skipped, then its tasks.

    The same of what judges say of harm comes after them.

    Differences are paired on problems. Where the two could not be paired, and in summaries of an earlier version, they treat
    the two estimates as independent, but for the reasoning headline, which is the safety tax with its sign turned.
    """
    base, tuned, paired = summary.get("base"), summary.get("tuned"), summary.get("differences", {"headline": {}, "tasks": {}})
    for kind, names in KINDS.items():
        sides = [estimate_of(side and side["headline"][names.headline]) for side in (base, tuned)]
        if sides == [None, None] and kind not in summary.get("skipped", {}).values():
            continue
        change = estimate_of(paired["headline"].get(names.headline))
        if change is None and kind == "reasoning" and "tax" in summary:
            tax = estimate_of(summary["tax"]["points"])
            change = None if tax is None else tax.scaled(-0.01)
        yield _result_line(TITLES[kind], kind, True, sides, change)
        tasks = dict.fromkeys(task for side in (base, tuned) if side for task in side["tasks"])
        for task in tasks:
            sides = [estimate_of(side and side["tasks"].get(task, {}).get(names.metric)) for side in (base, tuned)]
            if sides != [None, None]:
                change = estimate_of(paired["tasks"].get(task, {}).get(names.metric))
                yield _result_line(task, kind, False, sides, change)
    harmful = [task for task in _tasks(summary) if _is_harmful(summary, task)]
    for metric, title in JUDGED_TITLES.items():
        sides = [estimate_of(side and side["headline"].get(metric)) for side in (base, tuned)]
        own = {
            task: [estimate_of(side and side["tasks"].get(task, {}).get(metric)) for side in (base, tuned)] for task in harmful
        }
        if sides != [None, None]:
            yield _result_line(title, metric, True, sides, None)
        for task, found in own.items():
            if found != [None, None]:
                yield _result_line(task, metric, False, found, None)


def _tasks(summary: Summary) -> list[str]:
    """Returns the tasks of all subjects, in their order."""
    return list(dict.fromkeys(task for subject in SUBJECTS if subject in summary for task in summary[subject]["tasks"]))


def _is_harmful(summary: Summary, task: str) -> bool:
    return any(KINDS["harmful"].metric in summary[side]["tasks"].get(task, {}) for side in SUBJECTS if side in summary)


@dataclass(frozen=True)
class JudgeLine:
    """What a judge says of a task beside the results: another judge's rate, harm on a benign one, or no verdict."""

    judge: str
    task: str
    title: str
    base: Estimate | None
    tuned: Estimate | None


def judge_lines(summary: Summary) -> Iterator[JudgeLine]:
    """Yields what judges say beside the results: of the first ones, outputs without a verdict; of the others, every rate."""
    subjects = [summary.get(subject) for subject in SUBJECTS]

    def line(judge: str, task: str, metric: str, found: list[dict[str, Any]]) -> Iterator[JudgeLine]:
        base, tuned = (estimate_of(metrics.get(metric)) for metrics in found)
        if base is not None or tuned is not None:
            yield JudgeLine(judge, task, METRIC_TITLES.get(metric, metric), base, tuned)

    for task in _tasks(summary):
        found = [side["tasks"].get(task, {}) if side else {} for side in subjects]
        for metric in (ERROR_RATE,) if _is_harmful(summary, task) else (*JUDGED_TITLES, ERROR_RATE):
            judge = next((metrics[metric].get("judge") for metrics in found if metric in metrics), None)
            yield from line(judge or "", task, metric, found)
    for judge in dict.fromkeys(judge for side in subjects if side for judge in side.get("judges", {})):
        apart = [side.get("judges", {}).get(judge, {}) if side else {} for side in subjects]
        for task in dict.fromkeys(task for tasks in apart for task in tasks):
            found = [tasks.get(task, {}) for tasks in apart]
            for metric in METRIC_TITLES:
                yield from line(judge, task, metric, found)


def agreement_lines(summary: Summary) -> Iterator[tuple[str, list[str]]]:
    """Yields for each pair of judges, what they say and of which part; then subject, texts, agreement in per cent and kappa."""
    for subject in SUBJECTS:
        for one in summary.get(subject, {}).get("agreement", []):
            title = f"{' and '.join(one['judges'])}: {one['says']}, {one['part']}"
            name = subject if "tuned" in summary else "model"
            yield title, [name, f"{one['n']:,}", percent(estimate_of(one["agreement"])), number(estimate_of(one["kappa"]))]


def _result_line(title: str, kind: str, is_headline: bool, sides: list[Estimate | None], paired: Estimate | None) -> ResultLine:
    base, tuned = sides
    change = paired
    if change is None and base is not None and tuned is not None:
        change = difference(base, tuned)
    tone = "same"
    if change is not None and change.value is not None and not _contains_zero(change):
        tone = "better" if (change.value > 0) == WANTED[kind] else "worse"
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


def beside_table(summary: Summary, without: Sequence[str] = ()) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Returns what else stands beside the metric: titles, and for each task its cells, `base → tuned`.

    They are tokens, accuracy of the finished, the grader's classes, pass@k and maj@k; rates in per cent. Columns that say
    nothing of any task are left out, and the grader's failures where there was none.

    Args:
        summary: of a run; one of an earlier version has none of these.
        without: metrics that are shown elsewhere.
    """
    sides = [summary[subject]["tasks"] for subject in SUBJECTS if subject in summary]
    tasks = list(dict.fromkeys(task for side in sides for task in side))
    found = dict.fromkeys(metric for side in sides for metrics in side.values() for metric in metrics if metric not in without)
    failed = [metrics.get(metric) for metric in _FAILURES for side in sides for metrics in side.values()]
    quiet = () if any(one and one["value"] for one in failed) else _FAILURES
    metrics = [
        *(metric for metric in BESIDE_TITLES if metric in found and metric not in quiet),
        *sorted(filter(is_at_k, found), key=_by_k),
    ]
    rows = [(task, [_cell(metric, [side.get(task, {}).get(metric) for side in sides]) for metric in metrics]) for task in tasks]
    return [BESIDE_TITLES.get(metric, metric) for metric in metrics], rows


def _by_k(metric: str) -> tuple[int, str]:
    name, _, k = metric.partition("@")
    return int(k), name


def _cell(metric: str, records: Sequence[Mapping[str, Any] | None]) -> str:
    known = [estimate_of(record) for record in records]
    if not any(known):
        return UNDEFINED
    texts = [UNDEFINED if one is None or one.value is None else _plain(metric, one.value) for one in known]
    return " → ".join(texts)


def _plain(metric: str, value: float) -> str:
    return f"{value:,.0f}" if metric == TOKENS else f"{100 * value:.1f}"


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
