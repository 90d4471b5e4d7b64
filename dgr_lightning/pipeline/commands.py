"""The stages of a run and their order: source set → refinement → training → evaluation → report.

The only module that knows the order. A stage reads what the one before it left in the run directory and writes a record of its
own, `stages/<stage>.json`, when it is done; so the same command takes up a run wherever it stopped, and another `evaluation=`
trains nothing again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.markup import escape

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config
from dgr_lightning.console import console, say
from dgr_lightning.data import sources
from dgr_lightning.distributed import torchrun
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.evaluation.subjects import BASE, TUNED, outputs_folder
from dgr_lightning.evaluation.tax import tax
from dgr_lightning.files import read_json, write_json
from dgr_lightning.hashes import content_hash
from dgr_lightning.models import content
from dgr_lightning.models.folder import check_unquantised
from dgr_lightning.pipeline import locate, stages
from dgr_lightning.pipeline.identity import evaluation_hash
from dgr_lightning.pipeline.run_directory import Place, RunDir
from dgr_lightning.refinement.outcome import RefinementStats
from dgr_lightning.report import terminal
from dgr_lightning.report.summary import build_summary
from dgr_lightning.scoring.judge import judge_note
from dgr_lightning.tasks.loader import task_hashes

if TYPE_CHECKING:
    from dgr_lightning.tasks.metrics import Estimates

T = TypeVar("T")
Who = Literal["one", "machines", "ranks"]


def train(cfg: Config, place: Place) -> None:
    """Runs every stage, or what is missing of them, and shows what came out."""
    with ModelHandle(locate.locate(cfg.model), cfg) as base, _open(cfg, base, place, "train") as run:
        evaluation = evaluation_hash(cfg, {"evaluation": _task_hashes(cfg)})
        measured = _Measured(run, evaluation, _set_measure(cfg), _models_measure(cfg, None))
        if run.done and measured.is_current:
            return _show_finished(run, cfg)
        _announce(run, cfg)
        _check_model(cfg, base.folder)
        refined, shift = _refine(run, cfg, base)
        trained = _stage(run, cfg, "train", "Training", partial(stages.train, cfg, base, run.hash), by="ranks")
        measured.forget()
        seconds: dict[str, float] = {}
        before = _measure(run, cfg, base, BASE, cache_dir() / "evaluations", seconds)
        with ModelHandle(run.path / "model", cfg) as tuned:
            after = _measure(run, cfg, tuned, TUNED, run.path / "evaluation" / "stored", seconds)
            shift = _tuning_shift(run, cfg, base, tuned, shift)
        terminal.write(
            run.path,
            build_summary(
                run.hash,
                {"refine": refined["seconds"], "shift": shift["seconds"], "train": trained["seconds"], **seconds},
                rejected=refined["rejected"],
                base=before,
                tuned=after,
                tax=tax(run.path, before, after),
                refinement=_figures(refined, shift),
                shift=shift,
                training=trained["training"],
            ),
            judge_note(cfg.judge),
        )
        measured.mark()


def refine(cfg: Config, place: Place) -> None:
    """Runs sources and refinement alone."""
    with ModelHandle(locate.locate(cfg.model), cfg) as base, _open(cfg, base, place, "refine") as run:
        tuned_content = None if cfg.shift.tuned is None else content.model_hash(Path(cfg.shift.tuned).expanduser())
        measured = _Measured(run, _set_measure(cfg), _models_measure(cfg, tuned_content))
        if run.done and measured.is_current:
            return _show_finished(run, cfg)
        _announce(run, cfg)
        measured.forget()
        refined, shift = _refine(run, cfg, base)
        if cfg.shift.tuned is not None:
            with ModelHandle(Path(cfg.shift.tuned).expanduser(), cfg) as tuned:
                shift = _tuning_shift(run, cfg, base, tuned, shift)
        seconds = {"refine": refined["seconds"], "shift": shift["seconds"]}
        figures = _figures(refined, shift)
        summary = build_summary(run.hash, seconds, rejected=refined["rejected"], refinement=figures, shift=shift)
        terminal.write(run.path, summary, judge_note(cfg.judge))
        measured.mark()


def evaluate(cfg: Config, place: Place) -> None:
    """Estimates one model: any Hugging Face folder."""
    with ModelHandle(locate.locate(cfg.model), cfg) as model, _open(cfg, model, place, "evaluate") as run:
        if run.done:
            return _show_finished(run, cfg)
        _announce(run, cfg)
        seconds: dict[str, float] = {}
        store = cache_dir() / "evaluations"
        measures = _measure(run, cfg, model, BASE, store, seconds)
        terminal.write(run.path, build_summary(run.hash, seconds, base=measures), judge_note(cfg.judge))


def _check_model(cfg: Config, folder: Path) -> None:
    """Says now, and not after hours of refinement, that a model cannot be trained in the way that is asked for."""
    check_unquantised(folder)
    if cfg.tuning.method != "full":
        from dgr_lightning.training.tuning import check_model

        check_model(folder, cfg.tuning, cfg.model.trust_remote_code)
    if cfg.trainer.tensor_parallel > 1:
        from dgr_lightning.distributed import tensor_parallel

        tensor_parallel.check_model(folder, cfg.trainer.tensor_parallel, cfg.model.trust_remote_code)


def _open(cfg: Config, model: ModelHandle, place: Place, kind: Any) -> RunDir:
    identities: dict[str, Any] = {"model": model.model_hash}
    if kind != "evaluate":
        identities["data"] = sources.data_hash(cfg.data)
    if kind == "train":
        probes = cfg.probes.tasks if cfg.probes.every else []
        identities["probes"] = task_hashes(probes, "probe", cfg.probes.path)
    if kind == "evaluate":
        identities["evaluation"] = _task_hashes(cfg)
    return RunDir.open(cfg, identities, place, kind)


def _task_hashes(cfg: Config) -> list[str]:
    return task_hashes(cfg.evaluation.tasks, "evaluation", cfg.evaluation.path)


def _stage(
    run: RunDir,
    cfg: Config,
    name: str,
    title: str,
    compute: Callable[[Path], dict[str, Any]],
    *,
    measured: str | None = None,
    by: Who = "one",
) -> dict[str, Any]:
    """Returns a stage's record: what is on disk, or what `compute` returns, with the seconds that it took.

    Args:
        run: the run directory.
        cfg: the config.
        name: of the record, `stages/<name>.json`.
        title: for the screen.
        compute: does the work; called with the run directory.
        measured: hash of what the stage depends on beyond the run hash; a record under another one is made anew.
        by: see `_compute`.
    """
    path = run.path / "stages" / f"{name}.json"
    if path.exists():
        record = read_json(path)
        if record.get("measured") == measured:
            say(f"[dim]{title}: done before[/]")
            return record
    console.rule(f"[bold]{title}[/]", align="left")
    start = monotonic()
    record = _compute(cfg, compute, run.path, by)
    record |= {"seconds": monotonic() - start, "measured": measured}
    write_json(path, record)
    return record


def _compute(cfg: Config, compute: Callable[[Path], T], out: Path, by: Who) -> T:
    """Does the work of a stage: here, where one CPU process does everything, else in processes of its own.

    A process that ends gives back all of its GPU's memory; one that goes on to the next stage does not.

    Args:
        cfg: the config.
        compute: a function of `work`, all but its last argument given.
        out: that one: where the stage writes.
        by: `one` process; `machines`: one on each of several machines, which share what is to be generated; `ranks`: one a
            device.
    """
    trainer = cfg.trainer
    if trainer.accelerator == "cpu" and trainer.strategy == "single":
        return compute(out)
    from dgr_lightning.distributed import multi_node
    from dgr_lightning.distributed.launch import run_ranks

    assert trainer.devices is not None, "the door resolves trainer.devices"
    num_threads = max(1, (os.cpu_count() or 1) // trainer.devices)
    here = partial(compute, out)
    if torchrun.is_there():
        if by == "ranks":
            return multi_node.run_everywhere(here, num_threads)
        return multi_node.run_helped(here, partial(stages.helping, compute)) if by == "machines" else multi_node.run_alone(here)
    if by != "ranks":
        return run_ranks(here, 1)
    return run_ranks(here, trainer.devices, max_restarts=trainer.max_restarts, num_threads=num_threads)


def _refine(run: RunDir, cfg: Config, target: ModelHandle) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sources → refined set, and how far it lies from the target; returns both records."""
    refined = _stage(run, cfg, "refine", "Refinement", partial(stages.refine, cfg, target), by="machines")
    stats = RefinementStats(**refined["refinement"])
    shift = _stage(run, cfg, "shift", "Shift", partial(stages.shift, cfg, target, stats), measured=_set_measure(cfg))
    return refined, shift


def _tuning_shift(run: RunDir, cfg: Config, base: ModelHandle, tuned: ModelHandle, shift: dict[str, Any]) -> dict[str, Any]:
    """How far tuning moved the model; returns the record of the shift stage with that in it."""
    if not cfg.shift.prompts:
        return shift
    compute = partial(stages.divergence, cfg, base, tuned)
    moved = _stage(run, cfg, "divergence", "Divergence from the base", compute, measured=_models_measure(cfg, tuned.model_hash))
    rewrites = shift["similarity"] and shift["similarity"]["rewrites"]
    similarity = {"rewrites": rewrites, "outputs": moved["outputs"]} if rewrites or moved["outputs"] else None
    record = shift | {"kl": moved["kl"], "similarity": similarity}
    write_json(run.path / "stages" / "shift.json", record)
    return record


def _figures(refined: dict[str, Any], shift: dict[str, Any]) -> dict[str, Any]:
    """Returns `refinement` of summary.json."""
    from dgr_lightning.shift.measure import mean_nll

    return refined["refinement"] | {"nll_before": mean_nll(shift["before"]), "nll_after": mean_nll(shift["after"])}


def _measure(run: RunDir, cfg: Config, model: ModelHandle, subject: str, store: Path, seconds: dict[str, float]) -> Estimates:
    """Evaluates one subject into its folder of the run and adds the seconds it took."""
    console.rule(f"[bold]Evaluation of the {subject} model[/]", align="left")
    compute = partial(stages.evaluate, cfg, model, store, subject)
    estimates, seconds[f"evaluate_{subject}"] = _compute(cfg, compute, outputs_folder(run.path, subject), "machines")
    return estimates


def _set_measure(cfg: Config) -> str:
    """Returns a hash of what is measured of the set's shift, and how, beyond the run hash."""
    return content_hash(cfg.shift.limit, *_measured_with(cfg), cfg.sft.max_length)


def _models_measure(cfg: Config, tuned: str | None) -> str | None:
    """Returns a hash of what is measured between base and tuned, and how; None where nothing is.

    Args:
        cfg: the config.
        tuned: content of the tuned model, where it does not follow from the run.
    """
    shift = cfg.shift
    if not shift.prompts:
        return None
    prompts = task_hashes(cfg.probes.tasks, "probe", cfg.probes.path)
    return content_hash(shift.prompts, shift.max_new_tokens, shift.seed, *_measured_with(cfg), prompts, tuned)


def _measured_with(cfg: Config) -> list[Any]:
    folder = cfg.shift.embedding
    embedding = folder if folder in (None, "target") else content.model_hash(Path(folder).expanduser())
    return [embedding, cfg.engine.identity, cfg.engine.precision, cfg.engine.max_length]


class _Measured:
    """Which measurements a run's summary was written for; no part of the run hash, they can change under a trained model."""

    def __init__(self, run: RunDir, *hashes: str | None) -> None:
        self._path = run.path / "stages" / "measured.json"
        self._hashes = list(hashes)

    @property
    def is_current(self) -> bool:
        """Whether the summary on disk is of these measurements."""
        return self._path.exists() and read_json(self._path)["hashes"] == self._hashes

    def forget(self) -> None:
        """Before outputs are written anew: until `mark`, the summary on disk belongs to none."""
        self._path.unlink(missing_ok=True)

    def mark(self) -> None:
        """The summary on disk is of these measurements."""
        write_json(self._path, {"hashes": self._hashes})


def _announce(run: RunDir, cfg: Config) -> None:
    say(f"[bold]{escape(cfg.model.name)}[/] · {escape(cfg.data.name)} · {escape(cfg.refine.name)} → {escape(str(run.path))}")


def _show_finished(run: RunDir, cfg: Config) -> None:
    say(f"{escape(str(run.path))} is done; overwrite=true would start it anew.")
    terminal.show(run.path, judge_note(cfg.judge))
