"""The stages of a run and their order: source set → refinement → evaluation of the base → training → of the tuned → report.

The only module that knows the order. A stage reads what the one before it left in the run directory and writes a record of its
own when it is done; so the same command takes up a run wherever it stopped, and another `evaluation=` trains nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from dgr_lightning.config import Config, Kind
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say, silence
from dgr_lightning.data import sources
from dgr_lightning.distributed import torchrun
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.evaluation.asking import Asking, attack_warnings, attacked_tasks
from dgr_lightning.evaluation.budget import write_budget
from dgr_lightning.evaluation.differences import cap_hit_warnings, differences
from dgr_lightning.evaluation.subjects import BASE, SUBJECTS, TUNED
from dgr_lightning.evaluation.tax import tax
from dgr_lightning.example import read_refined
from dgr_lightning.files import local_path
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.folder import check_unquantised
from dgr_lightning.models.model_hash import model_hash
from dgr_lightning.pipeline import stages
from dgr_lightning.pipeline.checkpoint_curve import evaluate_checkpoints
from dgr_lightning.pipeline.disk_room import check_room
from dgr_lightning.pipeline.engine_stages import (
    DIVERGENCE,
    EVALUATE,
    REFINE,
    SHIFT,
    estimates_of,
    evaluate_alone,
    judges_of,
    run_with_base,
    run_with_tuned,
    shift_with_divergence,
)
from dgr_lightning.pipeline.execution import Record, Stage, execute
from dgr_lightning.pipeline.identity import evaluation_hash, identify
from dgr_lightning.pipeline.locate_model import locate, subject
from dgr_lightning.pipeline.measurements import Measured, divergence_hash, shift_hash
from dgr_lightning.pipeline.memory_check import PlannedMemory
from dgr_lightning.pipeline.overlap import load_sources, measured_hashes, measured_prompts, overlap
from dgr_lightning.pipeline.place import Place
from dgr_lightning.pipeline.probe_settings import drop_unused_cadence, num_examples, settle_cadence, settle_sampling
from dgr_lightning.pipeline.run_directory import RunDir
from dgr_lightning.pipeline.set_lengths import set_lengths
from dgr_lightning.pipeline.sweep_objective import objective
from dgr_lightning.refinement.outcome import RefinementStats, fallback_warning
from dgr_lightning.refinement.strategy import check_thinking, strategy_of
from dgr_lightning.report import terminal
from dgr_lightning.report.summary import build_summary
from dgr_lightning.report.wandb_results import send_results
from dgr_lightning.scoring.guard_choice import prepare_guards
from dgr_lightning.scoring.panel import Panel
from dgr_lightning.shift.measure import mean_nll
from dgr_lightning.tasks.loader import task_hashes
from dgr_lightning.tasks.metrics import KINDS, REASONING
from dgr_lightning.tasks.metrics import Kind as TaskKind
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, PROBE
from dgr_lightning.training.checkpoint_folder import FOLDER, CheckpointFolder
from dgr_lightning.training.wandb import wandb_settings


def train(cfg: Config, place: Place) -> float | tuple[float, float] | None:
    """Runs every stage, or what is missing of them, shows the result, and returns a sweep's objective."""
    with ModelHandle(locate(cfg.model), cfg) as base, _open(cfg, base, place, "train") as run:
        evaluation = evaluation_hash(cfg, {"evaluation": _task_hashes(cfg, EVALUATION)})
        measured = Measured(run.path, evaluation, shift_hash(cfg), divergence_hash(cfg, None))
        if run.done and measured.is_current:
            _show_finished(run, cfg, place)
            return objective(run.path / "metrics.csv")
        _announce(run, cfg, base)
        Asking(cfg.evaluation, base.chat)  # refuses, now and not after the training, what this model cannot be asked
        prepare_guards(cfg)
        _check_model(cfg, base)
        check_room(cfg, base.folder, run.path)
        _check_memory(cfg, base, run)
        measured.forget()
        diverges = bool(cfg.shift.prompts)
        records = run_with_base(run.path, cfg, base, evaluation=evaluation, diverges=diverges)
        training = Stage("train", "Training", partial(stages.training, cfg, base, run.hash), "ranks")
        records["train"] = trained = execute(training, run.path, cfg)
        with ModelHandle(run.path / "model", cfg) as tuned:
            records |= run_with_tuned(run.path, cfg, base, tuned, evaluation=evaluation, diverges=diverges)
        refined, (before, after) = records[REFINE], (estimates_of(records[EVALUATE[one]]) for one in SUBJECTS)
        shift = shift_with_divergence(run.path, records[SHIFT], records.get(DIVERGENCE))
        changes = differences(run.path, _kinds(cfg), base.chat)
        write_budget(run.path, SUBJECTS, _reasoning(cfg))
        summary = build_summary(
            run.hash,
            _seconds(records, REFINE, SHIFT, EVALUATE[BASE], "train", EVALUATE[TUNED]),
            warnings=[
                *_warnings(refined, cfg),
                *attack_warnings(cfg.evaluation),
                *cap_hit_warnings(changes, before, after),
            ],
            skipped=_skipped(cfg),
            **_data(refined),
            overlap=overlap((example.prompt for example in read_refined(run.path / stages.REFINED)), measured_prompts(cfg)),
            evaluation=attacked_tasks(cfg.evaluation),
            base=before,
            tuned=after,
            judges=judges_of(records),
            tax=tax(run.path, before, after),
            differences=changes,
            refinement=_figures(refined, shift),
            shift=shift,
            training=trained["training"],
        )
        if not (run.done or cfg.trainer.keep_optimizer):
            # Before the summary, which says that the run is whole; and once, so that what was kept stays when asked for again.
            CheckpointFolder(run.path / FOLDER).delete_all()
        terminal.write(run.path, summary, Panel.of(cfg).note)
        send_results(wandb_settings(cfg, run.path, run.hash), summary, run.path, cfg.logger)
        measured.mark()
        return objective(run.path / "metrics.csv")


def refine(cfg: Config, place: Place) -> None:
    """Runs sources and refinement alone."""
    tuned_folder = None if cfg.shift.tuned is None else Path(cfg.shift.tuned).expanduser()
    with ModelHandle(locate(cfg.model), cfg) as base, _open(cfg, base, place, "refine") as run:
        tuned_hash = None if tuned_folder is None else model_hash(tuned_folder)
        measured = Measured(run.path, shift_hash(cfg), divergence_hash(cfg, tuned_hash))
        if run.done and measured.is_current:
            return _show_finished(run, cfg, place)
        _announce(run, cfg, base)
        if strategy_of(cfg.refine).uses_guard:
            prepare_guards(cfg)
        check_thinking(cfg.refine, base.chat)
        measured.forget()
        diverges = bool(tuned_folder is not None and cfg.shift.prompts)
        records = run_with_base(run.path, cfg, base, evaluation=None, diverges=diverges)
        if tuned_folder is not None:
            with ModelHandle(tuned_folder, cfg) as tuned:
                records |= run_with_tuned(run.path, cfg, base, tuned, evaluation=None, diverges=diverges)
        refined = records[REFINE]
        shift = shift_with_divergence(run.path, records[SHIFT], records.get(DIVERGENCE))
        figures = _figures(refined, shift)
        summary = build_summary(
            run.hash,
            _seconds(records, REFINE, SHIFT),
            warnings=_warnings(refined, cfg),
            **_data(refined),
            refinement=figures,
            shift=shift,
        )
        terminal.write(run.path, summary, Panel.of(cfg).note)
        measured.mark()


def evaluate(cfg: Config, place: Place) -> None:
    """Measures a model: any Hugging Face folder, an adapter on its base, a server's; or the checkpoints of a training."""
    if cfg.checkpoints is not None:
        place.directory = local_path(cfg.checkpoints)
        return evaluate_checkpoints(cfg, place.directory, evaluation_hash(cfg, {"evaluation": _task_hashes(cfg, EVALUATION)}))
    with subject(cfg) as model, _open(cfg, model, place, "evaluate") as run:
        if run.done:
            return _show_finished(run, cfg, place)
        _announce(run, cfg, model)
        Asking(cfg.evaluation, model.chat)
        prepare_guards(cfg)
        record = evaluate_alone(run.path, cfg, model, evaluation_hash(cfg, {"evaluation": _task_hashes(cfg, EVALUATION)}))
        seconds, judges = {EVALUATE[BASE]: record["seconds"]}, judges_of({EVALUATE[BASE]: record})
        estimates = estimates_of(record)
        write_budget(run.path, [BASE], _reasoning(cfg))
        summary = build_summary(
            run.hash,
            seconds,
            warnings=attack_warnings(cfg.evaluation),
            skipped=_skipped(cfg),
            evaluation=attacked_tasks(cfg.evaluation),
            base=estimates,
            judges=judges,
        )
        terminal.write(run.path, summary, Panel.of(cfg).note)
        send_results(wandb_settings(cfg, run.path, run.hash), summary, run.path, cfg.logger)


def _open(cfg: Config, model: ModelHandle, place: Place, kind: Kind) -> RunDir:
    contents: dict[str, Any] = {"model": model.identity_hash}
    if kind == "train":
        drop_unused_cadence(cfg)
    if kind == "evaluate":
        contents["evaluation"] = _task_hashes(cfg, EVALUATION)
    else:
        contents["data"] = sources.data_hash(cfg.data)
        if cfg.data.drop_overlap:
            contents["data"] = content_hash(contents["data"], measured_hashes(cfg))
    if kind == "train":
        contents["probes"] = _task_hashes(cfg, PROBE) if cfg.probes.every else []
        if cfg.probes.every == AUTO:
            settle_cadence(cfg, num_examples(cfg, contents["data"]))
        settle_sampling(cfg, model.folder)
    return RunDir.open(cfg, identify(cfg, contents, kind), model.model_hash, place)


def _task_hashes(cfg: Config, split: str) -> list[str]:
    section = cfg.evaluation if split == EVALUATION else cfg.probes
    return task_hashes(section.tasks, split, section.path)


def _check_model(cfg: Config, base: ModelHandle) -> None:
    """Refuses a model that cannot be trained and measured as the config asks, now and not after hours of refinement."""
    folder = base.folder
    check_unquantised(folder)
    check_thinking(cfg.refine, base.chat)
    if cfg.probes.every and cfg.probes.tasks:
        from dgr_lightning.training.probes import check_probes

        check_probes(folder, cfg, base.chat)
    if cfg.tuning.method != "full":
        from dgr_lightning.training.adapters import check_adapters

        check_adapters(folder, cfg.tuning, cfg.model.trust_remote_code)
    if cfg.trainer.tensor_parallel > 1:
        from dgr_lightning.distributed import tensor_parallel

        tensor_parallel.check_folder(folder, cfg.trainer.tensor_parallel, cfg.model.trust_remote_code)


def _seconds(records: Mapping[str, Record], *names: str) -> dict[str, float]:
    """Returns `wall_seconds` of summary.json for these stages."""
    return {name: records[name]["seconds"] for name in names}


def _check_memory(cfg: Config, base: ModelHandle, run: RunDir) -> None:
    """Refuses a training that will not fit its devices, whatever is written; later the training checks its real rows itself."""
    trainer = cfg.trainer
    if (trainer.accelerator == "cpu" and trainer.device_memory_gib is None) or (run.path / stages.REFINED).exists():
        return
    with silence():  # the stage, which reads the set again, says what there is to say
        lengths = set_lengths(load_sources(cfg, measured_prompts(cfg)).examples, base.chat, cfg)
    if (planned := PlannedMemory.of(base.folder, cfg, lengths)) is not None:
        planned.require()


def _data(refined: Record) -> Record:
    """Returns `data` of summary.json; the record of an earlier version has fewer counts."""
    return {name: refined[name] for name in ("rejected", "labels", "sources") if name in refined}


def _figures(refined: Record, shift: Record) -> Record:
    """Returns `refinement` of summary.json."""
    figures: Record = refined["refinement"]
    return figures | {"nll_before": mean_nll(shift["before"]), "nll_after": mean_nll(shift["after"])}


def _kinds(cfg: Config) -> dict[str, TaskKind]:
    """Returns the kind of every task that is measured, by the task's own name."""
    return {TASKS[name].name: KINDS[TASKS[name].kind] for name in cfg.evaluation.tasks}


def _reasoning(cfg: Config) -> list[str]:
    """Returns the reasoning tasks that are measured."""
    return [task for task, kind in _kinds(cfg).items() if kind is REASONING]


def _warnings(refined: Record, cfg: Config) -> list[str]:
    paired = strategy_of(cfg.refine).pairs_by_length
    warning = fallback_warning(RefinementStats(**refined["refinement"]), cfg.refine.on_failure, paired=paired)
    return [] if warning is None else [warning]


def _skipped(cfg: Config) -> dict[str, str]:
    """Returns `skipped` of summary.json."""
    return {task.name: task.kind for task in (TASKS[name] for name in cfg.evaluation.skipped)}


def _announce(run: RunDir, cfg: Config, model: ModelHandle) -> None:
    """Says what runs where, and how the model marks thinking; a model whose files do not tell is refused by that.

    So are nodes that do not share the run's folders.
    """
    say(f"[bold]{escape(cfg.model.name)}[/] · {escape(cfg.data.name)} · {escape(cfg.refine.name)} → {escape(str(run.path))}")
    say(f"[dim]chat style: {model.chat.style}[/]")
    if torchrun.is_active():
        from dgr_lightning.distributed.shared_folders import require_shared_folders

        require_shared_folders(run.path, model.folder)


def _show_finished(run: RunDir, cfg: Config, place: Place) -> None:
    place.shown = True
    run.note_asked()  # by that a study knows the runs of its command
    say(f"{escape(str(run.path))} is done; overwrite=true starts it from the beginning.")
    terminal.show(run.path, Panel.of(cfg).note)
