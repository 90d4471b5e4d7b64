"""`summary.json`, schema 1: what a run came to, for scripts and dashboards. Its presence means that the run is done.

Rates lie in 0 … 1, the tax is in points (hundredths) and in per cent of the base's accuracy, times are in seconds. A measure is
`{"value", "low", "high", "n"}` with its 95 % interval. What is undefined is null,
of a measure its `value`. A run of a part of the stages holds the parts
that apply: `refine.py` no `base`, `tuned`, `tax` and `training`; `evaluate.py` only `base`, which is the model it was given.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from dgr_lightning.evaluation.subjects import SUBJECTS
from dgr_lightning.shift.nll import PARTS
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import HEALTH, KINDS, Estimates, headline

Summary = Mapping[str, Any]
"""The parsed JSON of a summary."""

SUMMARY = "summary.json"
"""Its name in a run directory."""

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
_PARTS = ("data", "base", "tuned", "tax", "refinement", "shift", "training")
_SHIFT = ("before", "after", "similarity", "kl")
_NLL, _SIMILARITY, _KL = ("nll", "perplexity"), ("rewrites", "outputs"), ("kl", "k3")
_HEADLINES = tuple(kind.headline for kind in KINDS.values())
_RATES = (*(kind.metric for kind in KINDS.values()), *HEALTH)


def build_summary(
    config_hash: str,
    wall_seconds: Mapping[str, float],
    *,
    rejected: Mapping[str, int] | None = None,
    base: Estimates | None = None,
    tuned: Estimates | None = None,
    tax: Mapping[str, Estimate] | None = None,
    refinement: Mapping[str, Any] | None = None,
    shift: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the summary of a run; a part that is None is left out of it.

    Args:
        config_hash: the run hash.
        wall_seconds: stage → seconds of wall clock.
        rejected: reason → rows of the source set that were rejected.
        base: what the model before training measures, by task.
        tuned: the same of the trained one.
        tax: `evaluation.tax` of the two.
        refinement: the fields of `RefinementStats`, with `nll_before` and `nll_after` (mean nats per target token).
        shift: the record of the stage, whose measures alone go into a summary: `before` and `after` (part → `nll`, nats per
            token, and `perplexity`), `similarity` (`rewrites` and `outputs`: mean cosines) and `kl` (`all` or kind of prompt →
            `kl` and `k3`, nats per token); null is what was not measured.
        training: the fields of `TrainingResult`.

    Raises:
        ValueError: the parts do not make a summary of this schema; see `check_summary`.
    """
    parts = {
        "data": None if rejected is None else {"rejected": dict(rejected)},
        "base": None if base is None else _model_part(base),
        "tuned": None if tuned is None else _model_part(tuned),
        "tax": None if tax is None else {name: measure.to_json() for name, measure in tax.items()},
        "refinement": None if refinement is None else {key: _finite(refinement[key]) for key in _REFINEMENT},
        "shift": None if shift is None else _shift_part(shift),
        "training": None if training is None else {key: _finite(training[key]) for key in _TRAINING},
    }
    summary = {"schema": SCHEMA, "config_hash": config_hash, "versions": versions()}
    summary |= {name: part for name, part in parts.items() if part is not None}
    summary["wall_seconds"] = {stage: round(seconds, 3) for stage, seconds in wall_seconds.items()}
    check_summary(summary)
    return summary


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that have a say in the figures, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_summary(summary: Summary) -> None:
    """Holds a summary to schema 1: the keys, the shape of every measure, its range, and no NaN.

    Raises:
        ValueError: it is not one; the message names the place.
    """
    _check_keys(summary, "", required=("schema", "config_hash", "versions", "wall_seconds"), optional=_PARTS)
    if summary["schema"] != SCHEMA:
        raise ValueError(f"schema is {summary['schema']!r}, not {SCHEMA}")
    if "data" in summary:
        _check_keys(summary["data"], "data", required=("rejected",))
        _check_counts(summary["data"]["rejected"], "data.rejected")
    for subject in SUBJECTS:
        if subject in summary:
            _check_model_part(summary[subject], subject)
    if "tax" in summary:
        _check_keys(summary["tax"], "tax", required=("points", "relative_percent"))
        for name, value in summary["tax"].items():
            _check_measure(value, f"tax.{name}", math.inf)
    if "shift" in summary:
        _check_shift_part(summary["shift"])
    for part, keys in (("refinement", _REFINEMENT), ("training", _TRAINING)):
        if part in summary:
            _check_keys(summary[part], part, required=keys)
            for key, value in summary[part].items():
                if key == "fallback":
                    _check_counts(value, f"{part}.{key}")
                else:
                    _check_number(value, f"{part}.{key}")
    for stage, seconds in summary["wall_seconds"].items():
        _check_number(seconds, f"wall_seconds.{stage}")


def _model_part(measures: Estimates) -> dict[str, Any]:
    return {
        "headline": {name: measure.to_json() for name, measure in headline(measures).items()},
        "tasks": {task: {metric: value.to_json() for metric, value in metrics.items()} for task, metrics in measures.items()},
    }


def _shift_part(record: Mapping[str, Any]) -> dict[str, Any]:
    def of(figures: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
        return None if figures is None else {name: figures[name] for name in names}

    similarity, kl = record["similarity"], record["kl"]
    return {
        "before": {part: of(record["before"][part], _NLL) for part in PARTS},
        "after": {part: of(record["after"][part], _NLL) for part in PARTS},
        "similarity": None
        if similarity is None
        else {key: similarity[key] and similarity[key]["cosine"] for key in _SIMILARITY},
        "kl": None if kl is None else {kind: of(figures, _KL) for kind, figures in kl.items()},
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_model_part(part: Any, place: str) -> None:
    _check_keys(part, place, required=("headline", "tasks"))
    _check_keys(part["headline"], f"{place}.headline", required=_HEADLINES)
    for name, value in part["headline"].items():
        _check_measure(value, f"{place}.headline.{name}", 1.0)
    for task, metrics in part["tasks"].items():
        _check_keys(metrics, f"{place}.tasks.{task}", optional=_RATES)
        for metric, value in metrics.items():
            _check_measure(value, f"{place}.tasks.{task}.{metric}", 1.0)


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
            for measure, value in (figures or {}).items():
                _check_measure(value, f"shift.{key}.{name}.{measure}", math.inf)
    for name, value in (part["similarity"] or {}).items():
        if value is not None:
            _check_measure(value, f"shift.similarity.{name}", math.inf)


def _check_keys(value: Any, place: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place or 'summary'} is not an object")
    missing = [key for key in required if key not in value]
    unknown = [key for key in value if key not in required + optional]
    if missing or unknown:
        raise ValueError(f"{place or 'summary'}: missing keys {missing}, unknown keys {unknown}")


def _check_measure(value: Any, place: str, most: float) -> None:
    """Checks a measure; of a rate (`most` is 1) also that it lies in 0 … 1."""
    _check_keys(value, place, required=("value", "low", "high", "n"))
    for key in value:
        _check_number(value[key], f"{place}.{key}")
    known = [value[key] for key in ("low", "value", "high") if value[key] is not None]
    if known != sorted(known) or (most == 1.0 and not all(0.0 <= number <= 1.0 for number in known)):
        raise ValueError(f"{place}: {known} are not low <= value <= high in range")


def _check_counts(value: Any, place: str) -> None:
    _check_keys(value, place, optional=tuple(value))
    for reason, count in value.items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{place}.{reason}: {count!r} is not a count")


def _check_number(value: Any, place: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
        raise ValueError(f"{place}: {value!r} is not a finite number or null")
