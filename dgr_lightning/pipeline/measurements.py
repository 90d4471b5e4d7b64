"""Measurements beyond what names a run: they can change under a trained model, and the summary is then written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgr_lightning.config import Config
from dgr_lightning.config.keys import keys, value_of
from dgr_lightning.files import read_json, write_json
from dgr_lightning.hashes import content_hash, file_hash
from dgr_lightning.models.model_hash import model_hash
from dgr_lightning.pipeline.identity import evaluation_hash
from dgr_lightning.report.summary import SUMMARY
from dgr_lightning.scoring.grader import GRADERS
from dgr_lightning.tasks.loader import task_hashes
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, PROBE

_CHAT = ("model.chat_style", "model.think_marks", "model.system_prompt", "model.template_args")


def shift_hash(cfg: Config) -> str:
    """Returns a hash of what is measured of the set's shift, and how, beyond the run hash."""
    return content_hash(cfg.shift.limit, *_measured_with(cfg), cfg.sft.max_length)


def divergence_hash(cfg: Config, tuned: str | None) -> str | None:
    """Returns a hash of what is measured between base and tuned model, and how; None where nothing is.

    Args:
        cfg: the config.
        tuned: content hash of the tuned model, where it does not follow from the run.
    """
    shift = cfg.shift
    if not shift.prompts:
        return None
    prompts = task_hashes(cfg.probes.tasks, PROBE, cfg.probes.path)
    return content_hash(shift.prompts, shift.max_new_tokens, shift.seed, *_measured_with(cfg), prompts, tuned)


def outputs_hash(cfg: Config, evaluation: str, model_hash: str) -> str:
    """Returns a hash of everything that the figures of an evaluation follow from.

    Outputs count as this code says, so a record that other code has left is made again, from the outputs that are stored: two
    models are never compared under two graders.

    Args:
        cfg: the config.
        evaluation: hash of what is measured and how, from `identity.evaluation_hash`.
        model_hash: content hash of the model.
    """
    package = Path(__file__).parents[1]
    code = [file_hash(file) for file in sorted(package.rglob("*.py"))]
    graders = [grader for name in cfg.evaluation.tasks if (grader := TASKS[name].grader) is not None]
    return content_hash(evaluation, model_hash, code, [GRADERS.outside_code(grader) for grader in graders])


def tuned_is_measured(run: Path, cfg: Config) -> bool:
    """Whether a finished training has evaluated its tuned model exactly as a config asks, by this code.

    Args:
        run: directory of the training.
        cfg: of an evaluation of its `model/`, `auto` values resolved.
    """
    files = [run / "stages" / name for name in ("evaluate_tuned.json", "measured.json")]
    if not all(file.is_file() for file in (*files, run / SUMMARY)) or not (run / "model").is_dir():
        return False
    if any(value_of(cfg, key) != known.default for key, known in keys().items() if key in _CHAT):
        return False  # the training prompted its model by its own record
    tasks = task_hashes(cfg.evaluation.tasks, EVALUATION, cfg.evaluation.path)
    wanted = outputs_hash(cfg, evaluation_hash(cfg, {"evaluation": tasks}), model_hash(run / "model"))
    return bool(read_json(files[0], "measured")["measured"] == wanted)


def _measured_with(cfg: Config) -> list[Any]:
    folder = cfg.shift.embedding
    embedding = folder if folder in (None, "target") else model_hash(Path(folder).expanduser())
    return [embedding, cfg.engine.identity, cfg.engine.precision, cfg.engine.max_length]


class Measured:
    """The measurements that the summary on disk was written for."""

    def __init__(self, run_dir: Path, *hashes: str | None) -> None:
        """Takes the hashes of the measurements that are wanted now."""
        self._path = run_dir / "stages" / "measured.json"
        self._hashes = list(hashes)

    @property
    def is_current(self) -> bool:
        """Whether the summary on disk is of these measurements."""
        return self._path.exists() and bool(read_json(self._path, "hashes")["hashes"] == self._hashes)

    def forget(self) -> None:
        """Says that outputs are being written again: until `mark`, the summary on disk is of no measurements."""
        self._path.unlink(missing_ok=True)

    def mark(self) -> None:
        """Says that the summary on disk is of these measurements."""
        write_json(self._path, {"hashes": self._hashes})
