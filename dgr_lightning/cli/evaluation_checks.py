"""Checks of what is measured and who judges it, before anything is loaded."""

from __future__ import annotations

from dgr_lightning.cli.path_checks import check_file, check_folder_path
from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.errors import UserError
from dgr_lightning.files import local_path
from dgr_lightning.installation import script_name


def check_evaluation(cfg: Config) -> None:
    """Raises a UserError where tasks, their settings, an attack or the model do not go together."""
    from dgr_lightning.evaluation.asking import check_asking
    from dgr_lightning.tasks.checks import check_tasks
    from dgr_lightning.tasks.registry import TASKS
    from dgr_lightning.tasks.settings import check_settings

    evaluation = cfg.evaluation
    if evaluation.skipped:
        raise UserError(
            f"evaluation.skipped=[{','.join(evaluation.skipped)}]: written by the project. To leave tasks out, name the others "
            "with evaluation.tasks=[…]; evaluation.missing=skip leaves out those whose data cannot be read."
        )
    if not evaluation.tasks:
        raise UserError("evaluation.tasks=[]: nothing to measure; name tasks, or take evaluation=quick or evaluation=micro.")
    if len(set(evaluation.tasks)) < len(evaluation.tasks):
        raise UserError(f"evaluation.tasks=[{','.join(evaluation.tasks)}]: a task is named twice.")
    languages = {TASKS[name].language for name in evaluation.tasks if name in TASKS}
    if languages and cfg.model.language not in languages:
        other = "evaluation=micro" if cfg.model.language == "micro" else "evaluation=quick"
        raise UserError(
            f"evaluation={evaluation.name} with model={cfg.model.name}: the tasks are in the {', '.join(sorted(languages))} "
            f"language, the model speaks the {cfg.model.language} one. Take {other}, or another model."
        )
    check_tasks(evaluation, cfg.probes, cfg.model.language)
    check_settings(evaluation)
    check_file("evaluation.attack_path", evaluation.attack_path)
    check_asking(evaluation, cfg.model.chat_style)


def check_judge(cfg: Config) -> None:
    """Raises a UserError where a judge does not exist, or its files or keys cannot be used."""
    from dgr_lightning.cli.judges import check_judges
    from dgr_lightning.scoring.guard import local_folder
    from dgr_lightning.scoring.guard_choice import guards_of
    from dgr_lightning.scoring.judge import JUDGES
    from dgr_lightning.scoring.panel import Panel

    for key, judge in [("judge", cfg.judge), *((f"judge.also[{i}]", one) for i, one in enumerate(cfg.judge.also))]:
        JUDGES.get(judge.name)
        check_file(f"{key}.phrases", judge.phrases)
        if judge.name == "keywords" and judge.model is not None:
            raise UserError(f"{key}.model={judge.model}: keywords runs no model; write judge=qwen3guard, or leave it out.")
    for one, _ in guards_of(cfg):
        if local_folder(one) is not None and one.model is not None:
            check_folder_path("judge.model", one.model, weights=not cfg.plan)
    if cfg.judge.also or cfg.judge.part != "answer" or cfg.judge.name != JudgeConfig.name:
        check_judges(cfg.judge, Panel.of(cfg))


def check_checkpoints(cfg: Config, command: str) -> None:
    """Raises a UserError where `checkpoints` names no finished training, or belongs to another command."""
    if cfg.checkpoints is None:
        return
    if command != "evaluate":
        raise UserError(f"checkpoints={cfg.checkpoints}: they are evaluated by {script_name('evaluate')} alone; leave it out.")
    if not (local_path(cfg.checkpoints) / "model").is_dir():
        raise UserError(
            f"checkpoints={cfg.checkpoints}: no finished training is there; name the run directory of one, with its model/."
        )
