"""What a run needs from elsewhere, looked for before anything is loaded: model, rows, evaluation tasks, probe tasks.

A run that cannot measure itself at the end should say so at the beginning. Local copies beat the hub everywhere.
"""

from __future__ import annotations

from dgr_lightning import hub
from dgr_lightning.config import Config
from dgr_lightning.console import say
from dgr_lightning.errors import UserError


def require(cfg: Config, command: str) -> None:
    """Checks that everything a command reads can be had.

    Raises:
        UserError: something is neither local nor cached, and no hub answers; the message names the keys that take local copies.
    """
    model = cfg.model
    if command != "evaluate":
        hub.require(cfg)
    elif model.hub_id is not None and not hub.model_available(model.hub_id, model.revision):
        raise UserError(
            f"{hub.unreachable()}, and model {model.hub_id} is not in the local cache. Use a local copy: "
            "model.path=<folder with config.json, *.safetensors and tokenizer>."
        )
    if command == "refine":
        return
    missing = _missing(cfg.evaluation.tasks, cfg.evaluation.path)
    if missing:
        raise UserError(
            f"{hub.unreachable()}, and these tasks of the evaluation are not in the local cache. Use local copies: "
            + " ".join(f"evaluation.path.{name}=<file>" for name in missing)
            + ", or name other tasks with evaluation.tasks=[…]."
        )


def drop_probes(cfg: Config, *, asked_for: bool) -> None:
    """Leaves probe tasks out whose problems cannot be had, and says so; the curves are then fewer.

    Args:
        cfg: the config; `probes.tasks` is changed in place, so that the run hash holds what was measured.
        asked_for: the user named the tasks: then a missing one is an error.

    Raises:
        UserError: a task that was asked for cannot be had.
    """
    missing = _missing(cfg.probes.tasks, cfg.probes.path) if cfg.probes.every > 0 else []
    if not missing:
        return
    copies = " ".join(f"probes.path.{name}=<file>" for name in missing)
    if asked_for:
        raise UserError(f"{hub.unreachable()}, and these probe tasks are not in the local cache. Use local copies: {copies}.")
    cfg.probes.tasks = [name for name in cfg.probes.tasks if name not in missing]
    say(f"no curves for {', '.join(missing)}: {hub.unreachable()}. With local copies: {copies}")


def _missing(names: list[str], paths: dict[str, str]) -> list[str]:
    """Returns the tasks that have neither a local copy nor a hub dataset that can be had."""
    from dgr_lightning.tasks import TASKS

    away = [TASKS[name] for name in names if name not in paths]
    return [task.name for task in away if task.hub_id is not None and not hub.dataset_available(task.hub_id, task.revision)]
