"""Checks, before anything is loaded, that what a run needs from a hub is local or in reach: model, rows, tasks.

A run that cannot measure itself at the end should say so at the beginning. Local copies beat the hub everywhere.
"""

from __future__ import annotations

from dgr_lightning.config import Config
from dgr_lightning.console import say
from dgr_lightning.data.hub import dataset_available
from dgr_lightning.errors import UserError
from dgr_lightning.models.hub import cached_model, closed_to_us, hub_reachable, model_available, unreachable


def require(cfg: Config, command: str) -> None:
    """Checks that everything a command reads is local, cached, or on a hub that answers.

    Raises:
        UserError: something is neither local nor cached, and no hub answers; the message names the keys that take local copies.
    """
    model = cfg.model
    if command != "evaluate":
        require_sources(cfg)
    elif model.hub_id is not None and not model_available(model.hub_id, model.revision):
        raise UserError(
            f"{unreachable()}, and model {model.hub_id} is not in the local cache. Use a local copy: "
            "model.path=<folder with config.json, *.safetensors and tokenizer>."
        )
    require_guards(cfg, command)
    if command == "refine":
        return
    missing = _missing(cfg.evaluation.tasks, cfg.evaluation.path)
    if missing:
        raise UserError(
            f"{unreachable()}, and these tasks of the evaluation are not in the local cache. Use local copies: "
            + " ".join(f"evaluation.path.{name}=<file>" for name in missing)
            + ", or name other tasks with evaluation.tasks=[…]."
        )


def require_guards(cfg: Config, command: str) -> None:
    """Checks that the models of guards, where a command asks them, are local, cached, or on a hub that gives them to us.

    Raises:
        UserError: one is out of reach, or its terms are not accepted; the message names `judge.model`.
    """
    from dgr_lightning.refinement.strategy import strategy_of
    from dgr_lightning.scoring.guard import local_folder
    from dgr_lightning.scoring.guard_choice import guards_of

    if command == "refine" and not strategy_of(cfg.refine).uses_guard:
        return
    copy = "name a local copy with judge.model=<folder with config.json, *.safetensors and tokenizer>"
    for judge, guard in guards_of(cfg):
        hub_id = judge.model or guard.hub_id
        if local_folder(judge) is not None or cached_model(hub_id, judge.revision) is not None:
            continue
        if not hub_reachable():
            raise UserError(f"{unreachable()}, and judge={judge.name} needs {hub_id}, which is not in the local cache: {copy}.")
        if closed_to_us(hub_id):
            raise UserError(
                f"judge={judge.name}: the hub does not give {hub_id} to this account. Accept its terms at "
                f"https://huggingface.co/{hub_id} and log in (hf auth login, or HF_TOKEN), or {copy}."
            )


def require_sources(cfg: Config) -> None:
    """Checks that the model and the data of a run are local, cached, or on a hub that answers.

    Local copies and recipes need no hub; their paths were checked before.

    Raises:
        UserError: the hub is needed and cannot be reached; one message for model and data, whichever is missing.
    """
    model, data, benign = cfg.model, cfg.data, cfg.data.benign
    missing = []
    fetched = model.hub_id if not (model.path or model.recipe) else None
    if fetched and not model_available(fetched, model.revision, with_code=model.trust_remote_code):
        missing.append(f"model {fetched}")
    if data.hub_id and not (data.path or data.recipe) and not dataset_available(data.hub_id, data.revision):
        missing.append(f"data {data.hub_id}")
    for key, part in data.parts:
        if part.hub_id and not dataset_available(part.hub_id, part.revision):
            missing.append(f"data {part.hub_id} ({key}.path)")
    if data.benign_ratio > 0 and benign.hub_id and not benign.path and not dataset_available(benign.hub_id, benign.revision):
        missing.append(f"benign data {benign.hub_id} (data.benign.path)")
    in_its_place = f"data.path=<jsonl, json, csv or parquet file>{_already(data.path or data.recipe)}."
    if missing:
        raise UserError(
            f"{unreachable()}, and these are not in the local cache: {', '.join(missing)}. Use local copies: "
            f"model.path=<folder with config.json, *.safetensors and tokenizer>{_already(model.path or model.recipe)} "
            + ("and path: <jsonl, json, csv or parquet file> in these parts of data.mix." if data.mix else in_its_place)
        )


def _already(local: str | None) -> str:
    return f" (local already: {local})" if local else ""


def drop_probes(cfg: Config, *, asked_for: bool) -> None:
    """Leaves out probe tasks whose problems are out of reach, and says so; there are fewer curves then.

    Args:
        cfg: the config; `probes.tasks` is changed in place, so that the run hash holds what was measured.
        asked_for: the user named the tasks: then a missing one is an error.

    Raises:
        UserError: a task that was asked for is out of reach.
    """
    missing = _missing(cfg.probes.tasks, cfg.probes.path) if cfg.probes.every != 0 else []
    if not missing:
        return
    copies = " ".join(f"probes.path.{name}=<file>" for name in missing)
    if asked_for:
        raise UserError(f"{unreachable()}, and these probe tasks are not in the local cache. Use local copies: {copies}.")
    from dgr_lightning.tasks.registry import TASKS

    cfg.probes.tasks = [name for name in cfg.probes.tasks if TASKS[name].name not in missing]
    say(f"no curves for {', '.join(missing)}: {unreachable()}. With local copies: {copies}")


def _missing(names: list[str], paths: dict[str, str]) -> list[str]:
    """Returns the tasks without a local copy whose hub dataset is neither cached nor reachable."""
    from dgr_lightning.tasks.registry import TASKS

    away = [task for name in names if (task := TASKS[name]).name not in paths]
    return [task.name for task in away if task.hub_id is not None and not dataset_available(task.hub_id, task.revision)]
