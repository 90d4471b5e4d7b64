"""`evaluate.py checkpoints=<run>`: every saved checkpoint of a training evaluated afterwards, as a curve over its steps.

In-training evaluation (`probes`) is small, so that a training can afford it; this is the whole evaluation, at the base, at each
checkpoint that the run keeps, and at the end. Outputs lie in `<run>/evaluation/step-<steps>/`, the curve in
`<run>/evaluation/checkpoints.csv`, and with `logger=wandb` in the training's own W&B run, over its own axis. A step that is
done is not evaluated again.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from rich.text import Text

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config, JudgeConfig, ModelConfig, TrainerConfig, TuningConfig, schema
from dgr_lightning.console import console
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json, write_text
from dgr_lightning.hashes import content_hash, file_hashes
from dgr_lightning.pipeline import stages
from dgr_lightning.pipeline.engine_stages import estimates_of
from dgr_lightning.pipeline.execution import Record, Stage, execute_together
from dgr_lightning.pipeline.locate_model import locate
from dgr_lightning.pipeline.measurements import outputs_hash
from dgr_lightning.pipeline.run_directory import locked
from dgr_lightning.report.estimates import percent
from dgr_lightning.report.page import write_html
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.report.tables import FigureTable
from dgr_lightning.scoring.panel import Panel
from dgr_lightning.statistics.intervals import Estimate
from dgr_lightning.tasks.metrics import KINDS, Estimates, headline
from dgr_lightning.training.checkpoint_folder import FOLDER, CheckpointFolder
from dgr_lightning.training.wandb import STEP, finish_wandb, start_wandb, wandb_settings

CURVE = Path("evaluation") / "checkpoints.csv"
"""In the run directory."""

PREFIX = "evaluation"
"""Begins the names of the curve's figures, as `probe` begins those of in-training evaluation."""


def evaluate_checkpoints(cfg: Config, run: Path, evaluation: str) -> None:
    """Evaluates what is missing, writes the curve, prints it, and sends it where the training sent its own.

    Args:
        cfg: of the evaluation.
        run: directory of a finished training.
        evaluation: hash of what is measured and how.

    Raises:
        UserError: the run is not finished, or keeps no checkpoint.
    """
    training = _training_config(run)
    saved = CheckpointFolder(run / FOLDER)
    last = read_json(run / SUMMARY, "training")["training"]["steps"]
    steps = sorted({0, last, *saved.steps()})
    if len(steps) < 3:
        raise UserError(
            f"checkpoints={run}: it keeps no checkpoint before its end. Train with trainer.checkpoint_every=<steps> "
            "trainer.keep_checkpoints=<as many> trainer.keep_optimizer=true, which keeps them when the run is whole."
        )
    with locked(run):
        base = locate(training.model)
        points: dict[int, Estimates] = {}
        for step in steps:
            folder = base if step == 0 else run / "model" if step == last else None
            points[step] = estimates_of(_evaluated(cfg, training, run, step, base, folder, evaluation))
        figures = {step: dict(curve_figures(estimates)) for step, estimates in points.items()}
        write_text(run / CURVE, _table(figures))
        write_html(run, read_json(run / SUMMARY), Panel.of(training).note)
    _show(points)
    _send(cfg, training, run, figures)


def curve_figures(estimates: Estimates) -> Iterator[tuple[str, float]]:
    """Yields the figures of a point: `evaluation/<headline>` and `evaluation/<task>/<metric>`, with `…_low` and `…_high`."""
    rates: dict[str, Estimate] = {name: value for name, value in headline(estimates).items() if value.value is not None}
    for task, metrics in estimates.items():
        rates |= {f"{task}/{metric}": metrics[metric] for kind in KINDS.values() if (metric := kind.metric) in metrics}
    for name, value in rates.items():
        for number, ending in ((value.value, ""), (value.low, "_low"), (value.high, "_high")):
            if number is not None:
                yield f"{PREFIX}/{name}{ending}", number


def _evaluated(cfg: Config, training: Config, run: Path, step: int, base: Path, folder: Path | None, evaluation: str) -> Record:
    """Returns the record of a step's evaluation: the one on disk, or made now.

    Args:
        cfg: of the evaluation.
        training: of the run.
        run: its directory.
        step: of the training.
        base: the model before it.
        folder: of the step's model; None: it is made of the step's checkpoint, and deleted again.
        evaluation: hash of what is measured and how.
    """
    subject = f"step-{step:08d}"
    source = folder or CheckpointFolder(run / FOLDER).of(step)
    measured = outputs_hash(cfg, evaluation, content_hash(file_hashes(source)))
    record = run / "stages" / f"evaluate_{subject}.json"
    if record.exists() and read_json(record, "measured")["measured"] == measured:
        return dict(read_json(record, "estimates"))
    made = run / "evaluation" / subject / "model"
    if folder is None:
        from dgr_lightning.training.checkpoint_model import write_checkpoint_model

        write_checkpoint_model(run / FOLDER, step, base, training, made)
    try:
        with ModelHandle(folder or made, cfg) as model:
            store = cache_dir() / "evaluations" if step == 0 else run / "evaluation" / "stored"
            work = partial(stages.evaluation, cfg, model, store, subject)
            stage = Stage(f"evaluate_{subject}", f"Evaluation after {step} steps", work, "one per node", measured)
            return execute_together([stage], model, run, cfg)[stage.name]
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _training_config(run: Path) -> Config:
    """Returns of the config of a finished training what its checkpoints are read by; UserError for anything else."""
    if not (run / SUMMARY).exists() or "training" not in read_json(run / SUMMARY):
        raise UserError(f"checkpoints={run}: no finished training is there; name a run directory of train.py.")
    plain = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    sections = {"model": ModelConfig, "tuning": TuningConfig, "trainer": TrainerConfig, "judge": JudgeConfig}
    read = {name: schema.section(of, plain[name], f"{name}.", {}) for name, of in sections.items()}
    return Config(seed=plain["seed"], name=plain["name"], **read)


def _table(figures: Mapping[int, Mapping[str, float]]) -> str:
    names = sorted({name for row in figures.values() for name in row})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([STEP, *names])
    writer.writerows([step, *(repr(row[name]) if name in row else "" for name in names)] for step, row in figures.items())
    return text.getvalue()


def _show(points: Mapping[int, Estimates]) -> None:
    heads = {step: headline(estimates) for step, estimates in points.items()}
    names = [kind.headline for kind in KINDS.values()]
    rows: Sequence[list[Text]] = [
        [Text(f"{step:,}"), *(Text(percent(head[name])) for name in names)] for step, head in heads.items()
    ]
    titles = [name.replace("_", " ") for name in names]
    console.print(FigureTable(["step", *titles], rows, title="Evaluation of checkpoints, per cent (95 % interval)"))


def _send(cfg: Config, training: Config, run: Path, figures: Mapping[int, Mapping[str, float]]) -> None:
    """Adds the curve to the W&B run of the training; the logger is the evaluation's."""
    training.logger = cfg.logger
    run_hash = read_json(run / SUMMARY, "config_hash")["config_hash"]
    settings = wandb_settings(training, run, run_hash)
    if settings is None:
        return
    settings = replace(settings, config={})  # the training's own stays as it is
    wandb_run = start_wandb(settings)
    for step, row in figures.items():
        wandb_run.log({**row, STEP: step})
    finish_wandb(wandb_run, settings, failed=False)
