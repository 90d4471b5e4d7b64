"""`summary.json`, schema 1: the results of a run, for scripts and dashboards. Its presence means that the run is done.

Rates lie in 0 … 1, the tax is in points (hundredths) and in per cent of the base's accuracy, times are in seconds. An estimate
is `{"value", "low", "high", "n"}` with its 95 % interval, and with `judge` where a judge says it. A number that is undefined is
null, an undefined estimate has the `value` null. A run of some of the stages holds only their parts: `refine.py` writes no
`base`, `tuned`, `tax` and `training`, `evaluate.py` only `base`, the model that it evaluated. `differences` holds tuned minus
base, paired on problems, `skipped` the tasks that could not be read, whose kind has no headline.

Where several judges were asked, `base` and `tuned` hold what the others say as `judges` (judge → task → metric → estimate), and
how far two of them agree as `agreement`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.shift.nll import PARTS
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import (
    ERROR_RATE,
    FINISHED,
    GRADED,
    HEALTH,
    JUDGED,
    KINDS,
    REASONING,
    TOKENS,
    Estimates,
    headline,
    is_at_k,
)

if TYPE_CHECKING:
    from dgr_lightning.evaluation.differences import Differences

Summary = Mapping[str, Any]
"""The parsed JSON of a summary."""

SUMMARY = "summary.json"
"""Name of the file in a run directory."""

SCHEMA = 1
PACKAGES = ("dgr-lightning", "torch", "lightning", "transformers", "tokenizers", "datasets", "hydra-core", "math-verify")

_REFINEMENT = ("examples", "refined", "fallback", "tokens_before", "tokens_after", "nll_before", "nll_after")
_TRAINING = (
    "steps",
    "target_tokens",
    "tokens_per_second",
    "peak_memory_bytes",
    "loss_first",
    "loss_last",
    "resumed_from_step",
)
_TRAINING_ADDED = ("probe_seconds", "probe_share")  # trainings of an earlier version did not measure them
_DATA = ("rejected", "labels", "sources", "overlap")
_PARTS = ("warnings", "skipped", "data", "evaluation", "base", "tuned", "tax", "differences", "refinement", "shift", "training")
_SHIFT = ("before", "after", "similarity", "kl")
_NLL, _SIMILARITY, _KL = ("nll", "perplexity"), ("rewrites", "outputs"), ("kl", "k3")
_HEADLINES = tuple(kind.headline for kind in KINDS.values())
_RATES = (*(kind.metric for kind in KINDS.values()), *JUDGED, ERROR_RATE, *HEALTH, *GRADED, FINISHED)
_APART = ("judges", "agreement")
_AGREEMENT = ("judges", "says", "part", "n", "agreement", "kappa")


class StageResults(TypedDict, total=False):
    """Results of the stages, as the stages return them; a stage that did not run has none.

    Attributes:
        warnings: sentences on what a reader of the figures must know; none is the usual case.
        skipped: task → kind, of the tasks that could not be read and were not to be measured. The headline of their kinds is
            null, and of reasoning the tax.
        rejected: reason → rows of the source set that were rejected.
        labels: label → examples of the source set.
        sources: name of a source → examples from it.
        overlap: task → examples trained on whose prompt is one of its own; tasks that share none are left out.
        evaluation: task → `attack` and `prefill` that its rates were measured under; tasks without any are left out.
        base: task → metric → estimate, of the model before training.
        tuned: the same of the trained model.
        judges: subject → what several judges say beside its metrics, as `evaluation.judged_rates.judges_apart` returns it.
        tax: `evaluation.tax` of the two.
        differences: `evaluation.differences` of the two.
        refinement: the fields of `RefinementStats`, with `nll_before` and `nll_after` (mean nats per target token).
        shift: the record of the stage, of which only the estimates go into a summary: `before` and `after` (part → `nll`, nats
            per token, and `perplexity`), `similarity` (`rewrites` and `outputs`: mean cosines) and `kl` (`all` or kind of
            prompt → `kl` and `k3`, nats per token); null where nothing was measured.
        training: the fields of `TrainingResult`.
    """

    warnings: Sequence[str]
    skipped: Mapping[str, str]
    rejected: Mapping[str, int]
    labels: Mapping[str, int]
    sources: Mapping[str, int]
    overlap: Mapping[str, int]
    evaluation: Mapping[str, Mapping[str, str]]
    base: Estimates
    tuned: Estimates
    judges: Mapping[str, Mapping[str, Any]]
    tax: Mapping[str, Estimate]
    differences: Differences
    refinement: Mapping[str, Any]
    shift: Mapping[str, Any]
    training: Mapping[str, Any]


def build_summary(config_hash: str, wall_seconds: Mapping[str, float], **results: Unpack[StageResults]) -> dict[str, Any]:
    """Returns the summary of a run.

    Args:
        config_hash: the run hash.
        wall_seconds: stage → seconds of wall clock.
        **results: results of the stages that ran.

    Raises:
        ValueError: the results do not make a summary of this schema; see `check_summary`.
    """
    summary: dict[str, Any] = {"schema": SCHEMA, "config_hash": config_hash, "versions": versions()}
    skipped = dict(results.get("skipped", {}))
    if warnings := [*results.get("warnings", []), *_not_measured(skipped)]:
        summary["warnings"] = warnings
    if skipped:
        summary["skipped"] = skipped
    if "rejected" in results:
        counts: Mapping[str, Any] = results
        summary["data"] = {name: dict(counts[name]) for name in _DATA if name in counts}
    apart = results.get("judges", {})
    if results.get("evaluation"):
        summary["evaluation"] = {task: dict(asked) for task, asked in results["evaluation"].items()}
    if "base" in results:
        summary["base"] = _model_part(results["base"], skipped) | dict(apart.get("base", {}))
    if "tuned" in results:
        summary["tuned"] = _model_part(results["tuned"], skipped) | dict(apart.get("tuned", {}))
    if "tax" in results:
        undefined = Estimate(None, None, None, 0) if REASONING.name in skipped.values() else None
        summary["tax"] = _json({name: undefined or estimate for name, estimate in results["tax"].items()})
    if "differences" in results:
        found = results["differences"]
        averages = {name: value for name, value in found.headline.items() if name not in _headlines_of(skipped)}
        by_task = {task: _json(metrics) for task, metrics in found.tasks.items()}
        summary["differences"] = {"headline": _json(averages), "tasks": by_task}
    if "refinement" in results:
        summary["refinement"] = {key: _finite(results["refinement"][key]) for key in _REFINEMENT}
    if "shift" in results:
        summary["shift"] = _shift_part(results["shift"])
    if "training" in results:
        added = [key for key in _TRAINING_ADDED if key in results["training"]]
        summary["training"] = {key: _finite(results["training"][key]) for key in (*_TRAINING, *added)}
    summary["wall_seconds"] = {stage: round(seconds, 3) for stage, seconds in wall_seconds.items()}
    check_summary(summary)
    return summary


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the installed packages that can change the figures."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_summary(summary: Summary) -> None:
    """Checks a summary against schema 1: its keys, the shape and range of every estimate, and that no number is NaN.

    Raises:
        ValueError: it does not follow the schema; the message names the place.
    """
    _check_keys(summary, "", required=("schema", "config_hash", "versions", "wall_seconds"), optional=_PARTS)
    if summary["schema"] != SCHEMA:
        raise ValueError(f"schema is {summary['schema']!r}, not {SCHEMA}")
    for warning in summary.get("warnings", []):
        if not isinstance(warning, str):
            raise ValueError(f"warnings: {warning!r} is not a sentence")
    for task, kind in summary.get("skipped", {}).items():
        if kind not in KINDS:
            raise ValueError(f"skipped.{task}: {kind!r} is no kind of task")
    if "data" in summary:
        _check_keys(summary["data"], "data", required=_DATA[:1], optional=_DATA[1:])
        for name, counts in summary["data"].items():
            _check_counts(counts, f"data.{name}")
    for task, asked in summary.get("evaluation", {}).items():
        _check_keys(asked, f"evaluation.{task}", optional=("attack", "prefill"))
    for subject in SUBJECTS:
        if subject in summary:
            _check_model_part(summary[subject], subject)
    if "tax" in summary:
        _check_keys(summary["tax"], "tax", required=("points", "relative_percent"))
        for name, value in summary["tax"].items():
            _check_estimate(value, f"tax.{name}")
    if "differences" in summary:
        part = summary["differences"]
        _check_keys(part, "differences", required=("headline", "tasks"))
        _check_metrics(part["headline"], "differences.headline", _HEADLINES, least=-1.0)
        for task, metrics in part["tasks"].items():
            _check_metrics(metrics, f"differences.tasks.{task}", _RATES, least=-1.0)
    if "shift" in summary:
        _check_shift_part(summary["shift"])
    for part, keys, added in (("refinement", _REFINEMENT, ()), ("training", _TRAINING, _TRAINING_ADDED)):
        if part in summary:
            _check_keys(summary[part], part, required=keys, optional=added)
            for key, value in summary[part].items():
                if key == "fallback":
                    _check_counts(value, f"{part}.{key}")
                else:
                    _check_number(value, f"{part}.{key}")
    for stage, seconds in summary["wall_seconds"].items():
        _check_number(seconds, f"wall_seconds.{stage}")


def _not_measured(skipped: Mapping[str, str]) -> Iterator[str]:
    """Yields a sentence a kind of which tasks were skipped."""
    for kind in KINDS:
        if tasks := ", ".join(task for task, its_kind in skipped.items() if its_kind == kind):
            yield f"not measured, because the data could not be read: {tasks}. So there is no average of the {kind} tasks."


def _headlines_of(skipped: Mapping[str, str]) -> set[str]:
    """Returns the headlines of the kinds of which a task was skipped."""
    return {KINDS[kind].headline for kind in skipped.values()}


def _model_part(estimates: Estimates, skipped: Mapping[str, str]) -> dict[str, Any]:
    averages = headline(estimates, frozenset(skipped.values()))
    return {"headline": _json(averages), "tasks": {task: _json(metrics) for task, metrics in estimates.items()}}


def _json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in estimates.items()}


def _shift_part(record: Mapping[str, Any]) -> dict[str, Any]:
    def select(figures: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
        return None if figures is None else {name: figures[name] for name in names}

    similarity, kl = record["similarity"], record["kl"]
    if similarity is not None:
        similarity = {key: similarity[key] and similarity[key]["cosine"] for key in _SIMILARITY}
    if kl is not None:
        kl = {kind: select(figures, _KL) for kind, figures in kl.items()}
    before, after = ({part: select(record[when][part], _NLL) for part in PARTS} for when in ("before", "after"))
    return {"before": before, "after": after, "similarity": similarity, "kl": kl}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_model_part(part: Any, place: str) -> None:
    _check_keys(part, place, required=("headline", "tasks"), optional=_APART)
    _check_keys(part["headline"], f"{place}.headline", required=_HEADLINES, optional=JUDGED)
    _check_metrics(part["headline"], f"{place}.headline", (*_HEADLINES, *JUDGED))
    _check_tasks(part["tasks"], f"{place}.tasks")
    for judge, tasks in part.get("judges", {}).items():
        _check_tasks(tasks, f"{place}.judges.{judge}")
    for index, one in enumerate(part.get("agreement", [])):
        _check_keys(one, f"{place}.agreement[{index}]", required=_AGREEMENT)
        _check_estimate(one["agreement"], f"{place}.agreement[{index}].agreement", 0.0, 1.0)
        _check_estimate(one["kappa"], f"{place}.agreement[{index}].kappa")


def _check_tasks(tasks: Any, place: str) -> None:
    _check_keys(tasks, place, optional=tuple(tasks))
    for task, metrics in tasks.items():
        _check_metrics(metrics, f"{place}.{task}", _RATES)


def _check_metrics(metrics: Any, place: str, rates: tuple[str, ...], least: float = 0.0) -> None:
    """Checks the estimates of a model, or differences of two: rates from `least` to 1, and numbers of tokens."""
    _check_keys(metrics, place, optional=(*rates, TOKENS, *filter(is_at_k, metrics)))
    for metric, value in metrics.items():
        _check_estimate(value, f"{place}.{metric}", *(() if metric == TOKENS else (least, 1.0)))


def _check_shift_part(part: Any) -> None:
    _check_keys(part, "shift", required=_SHIFT)

    def check(value: Any, place: str, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        if value is not None:
            _check_keys(value, place, required=names, optional=optional)

    for when in ("before", "after"):
        _check_keys(part[when], f"shift.{when}", required=PARTS)
    check(part["similarity"], "shift.similarity", _SIMILARITY)
    check(part["kl"], "shift.kl", ("all",), tuple(KINDS))
    for key, names in (("before", _NLL), ("after", _NLL), ("kl", _KL)):
        for name, figures in (part[key] or {}).items():
            check(figures, f"shift.{key}.{name}", names)
            for metric, value in (figures or {}).items():
                _check_estimate(value, f"shift.{key}.{name}.{metric}")
    for name, value in (part["similarity"] or {}).items():
        if value is not None:
            _check_estimate(value, f"shift.similarity.{name}")


def _check_keys(value: Any, place: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place or 'summary'} is not an object")
    missing = [key for key in required if key not in value]
    unknown = [key for key in value if key not in required + optional]
    if missing or unknown:
        raise ValueError(f"{place or 'summary'}: missing keys {missing}, unknown keys {unknown}")


def _check_estimate(value: Any, place: str, least: float = -math.inf, most: float = math.inf) -> None:
    """Checks an estimate, and that it lies in its range."""
    _check_keys(value, place, required=("value", "low", "high", "n"), optional=("judge",))
    if not isinstance(value.get("judge", ""), str):
        raise ValueError(f"{place}.judge: {value['judge']!r} is no name")
    for key in ("value", "low", "high", "n"):
        _check_number(value[key], f"{place}.{key}")
    known = [value[key] for key in ("low", "value", "high") if value[key] is not None]
    if known != sorted(known) or not all(least <= number <= most for number in known):
        raise ValueError(f"{place}: {known} are not low <= value <= high in range")


def _check_counts(value: Any, place: str) -> None:
    _check_keys(value, place, optional=tuple(value))
    for reason, count in value.items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{place}.{reason}: {count!r} is not a count")


def _check_number(value: Any, place: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
        raise ValueError(f"{place}: {value!r} is not a finite number or null")
