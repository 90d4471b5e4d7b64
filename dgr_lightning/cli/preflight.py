"""Checks, before anything is loaded, that what a run needs from a hub is local or in reach: model, rows, tasks.

A run that cannot measure itself at the end should say so at the beginning. Local copies beat the hub everywhere.
"""

from __future__ import annotations

from dgr_lightning.config import Config, JudgeConfig
from dgr_lightning.console import say
from dgr_lightning.data.hub import dataset_available
from dgr_lightning.errors import UserError
from dgr_lightning.files import local_path
from dgr_lightning.models.adapter_folder import base_of, is_adapter
from dgr_lightning.models.hub import model_available, unreachable
from dgr_lightning.pipeline.served_model import is_served


def require(cfg: Config, command: str) -> None:
    """Checks that everything a command reads is local, cached, or on a hub that answers.

    Raises:
        UserError: something is neither local nor cached, and no hub answers; the message names the keys that take local copies.
    """
    model = cfg.model
    if command != "evaluate":
        require_sources(cfg)
    elif model.hub_id is not None and not model_available(model.hub_id, model.revision, weights=not is_served(cfg)):
        raise UserError(
            f"{unreachable()}, and model {model.hub_id} is not in the local cache. Use a local copy: "
            "model.path=<folder with config.json, *.safetensors and tokenizer>."
        )
    if command == "evaluate" and model.path is not None and is_adapter(local_path(model.path)):
        base = base_of(local_path(model.path), model.base, f"model.path={model.path}")
        if base.hub_id is not None and not model_available(base.hub_id, base.revision):
            raise UserError(
                f"{unreachable()}, and {base.hub_id}, the base of the adapter, is not in the local cache. Name a local copy: "
                "model.base=<folder with config.json, *.safetensors and tokenizer>."
            )
    if command == "refine":
        return
    require_endpoints(cfg)
    missing = _missing(cfg.evaluation.tasks, cfg.evaluation.path)
    if missing:
        raise UserError(
            f"{unreachable()}, and these tasks of the evaluation are not in the local cache. Use local copies: "
            + " ".join(f"evaluation.path.{name}=<file>" for name in missing)
            + ", or name other tasks with evaluation.tasks=[…]."
        )


def require_endpoints(cfg: Config) -> None:
    """Asks every judge that is behind an endpoint one harmless question.

    Raises:
        UserError: one cannot be asked: no server, a wrong key, no such model.
    """
    if cfg.judge.name == JudgeConfig.name and not cfg.judge.also:
        return
    from dgr_lightning.scoring.endpoint import EndpointJudge
    from dgr_lightning.scoring.panel import Panel

    for member in Panel.of(cfg).members:
        if isinstance(member.judge, EndpointJudge):
            member.judge.check()


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
