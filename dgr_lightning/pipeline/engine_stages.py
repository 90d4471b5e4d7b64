"""The stages that need an engine, grouped by model, so that a run starts two engines: one over the base, one over the tuned.

    with the base, before training    refinement, shift, what the divergence needs of it, its evaluation
    with the tuned model, after it    its evaluation, the divergence

The stages of a group run one after the other in one process (`execution.execute_together`). On a GPU an engine takes the better
part of a minute to start; where nothing is missing for any of its stages, none is started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.evaluation.subjects import BASE, TUNED
from dgr_lightning.files import write_json
from dgr_lightning.pipeline import stages
from dgr_lightning.pipeline.execution import Record, Stage, execute_together
from dgr_lightning.pipeline.measurements import divergence_hash, outputs_hash, shift_hash
from dgr_lightning.scoring.guard_choice import guards_of
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import Estimates

REFINE, SHIFT, TRACES, DIVERGENCE = "refine", "shift", "base_traces", "divergence"
STORED = "evaluation/stored"
"""Where a training keeps the outputs of its tuned model, in its run directory."""

EVALUATE = {subject: f"evaluate_{subject}" for subject in (BASE, TUNED)}
"""Subject → name of the stage that evaluates it."""


def run_with_base(run: Path, cfg: Config, base: ModelHandle, *, evaluation: str | None, diverges: bool) -> dict[str, Record]:
    """Refines the set, measures its shift and evaluates the base; returns the records by stage.

    Args:
        run: the run directory.
        cfg: the run.
        base: the model.
        evaluation: hash of what is measured and how; None: the run evaluates no model.
        diverges: whether the tuned model will be compared with the base, token by token.
    """
    measures = evaluation is not None
    refinement = Stage(REFINE, "Refinement", partial(stages.refinement, cfg, base, measures=measures), "one per node")
    shift = Stage(SHIFT, "Shift", partial(stages.shift, cfg, base), measured=shift_hash(cfg))
    others = []
    if diverges:
        work = partial(stages.base_traces, cfg, base)
        others.append(Stage(TRACES, "Traces of the base", work, measured=divergence_hash(cfg, None)))
    if evaluation is not None:
        others.append(_evaluation(run, cfg, base, BASE, evaluation))
    # The model that embeds texts takes the engine's place in memory, so it comes when nothing else needs the engine.
    ordered = [refinement, shift, *others] if cfg.shift.embedding is None else [refinement, *others, shift]
    return execute_together(ordered, base, run, cfg)


def run_with_tuned(
    run: Path, cfg: Config, base: ModelHandle, tuned: ModelHandle, *, evaluation: str | None, diverges: bool
) -> dict[str, Record]:
    """Evaluates the tuned model and measures how far it has moved from the base; returns the records by stage.

    Args:
        run: the run directory.
        cfg: the run.
        base: the model before tuning; its engine is started only where its stored traces are gone.
        tuned: the model after it.
        evaluation: as for `run_with_base`.
        diverges: as for `run_with_base`.
    """
    ordered = [] if evaluation is None else [_evaluation(run, cfg, tuned, TUNED, evaluation)]
    if diverges:
        work = partial(stages.divergence, cfg, base, tuned)
        measured = divergence_hash(cfg, tuned.model_hash)
        divergence = Stage(DIVERGENCE, "Divergence from the base", work, measured=measured)
        # A guard takes the place of the engine, which would have to be started again for the divergence.
        ordered = [divergence, *ordered] if guards_of(cfg) else [*ordered, divergence]
    return execute_together(ordered, tuned, run, cfg)


def evaluate_alone(run: Path, cfg: Config, model: ModelHandle, evaluation: str) -> Record:
    """Evaluates a model that the run does not train; returns the record."""
    stage = _evaluation(run, cfg, model, BASE, evaluation)
    return execute_together([stage], model, run, cfg)[stage.name]


def estimates_of(record: Record) -> Estimates:
    """Returns the estimates by task, from the record of an evaluation."""
    found: dict[str, dict[str, Any]] = record["estimates"]
    return {task: {metric: Estimate(**estimate) for metric, estimate in metrics.items()} for task, metrics in found.items()}


def judges_of(records: Mapping[str, Record]) -> dict[str, Any]:
    """Returns subject → what several judges say beside its estimates, from the records of stages; no subject of one judge."""
    apart = {subject: records[name].get("judges") for subject, name in EVALUATE.items() if name in records}
    return {subject: found for subject, found in apart.items() if found}


def shift_with_divergence(run: Path, shift: Record, divergence: Record | None) -> Record:
    """Returns the record of the shift stage with that of the divergence in it, where there is one, and keeps it so."""
    if divergence is None:
        return shift
    rewrites, outputs = shift["similarity"] and shift["similarity"]["rewrites"], divergence["outputs"]
    similarity = {"rewrites": rewrites, "outputs": outputs} if rewrites or outputs else None
    record = shift | {"kl": divergence["kl"], "similarity": similarity}
    write_json(run / "stages" / f"{SHIFT}.json", record)
    return record


def _evaluation(run: Path, cfg: Config, model: ModelHandle, subject: str, evaluation: str) -> Stage:
    return Stage(
        EVALUATE[subject],
        f"Evaluation of the {subject} model",
        partial(stages.evaluation, cfg, model, _store(run, model, subject), subject),
        "one per node",
        measured=outputs_hash(cfg, evaluation, model.model_hash),
    )


def _store(run: Path, model: ModelHandle, subject: str) -> Path:
    """Returns where the outputs of a model are stored.

    Those of a base are shared by all runs. Those of a tuned model belong to the run that trained it, also where another command
    measures its `model/`: what the training has generated is not generated again. So do those of a served model, since nobody
    knows whether another run's were of the same weights: overwrite=true generates them again.
    """
    if subject == TUNED or model.served:
        return run / STORED
    trained_here = model.folder.parent / STORED
    if model.folder.name == "model" and trained_here.is_dir() and os.access(trained_here, os.W_OK):
        return trained_here
    return cache_dir() / "evaluations"
