"""Checks, before anything is loaded, that what a run needs from a hub is local or in reach: model, rows, tasks.

A run that cannot measure itself at the end should say so at the beginning. Local copies beat the hub everywhere.
"""

from __future__ import annotations

from dgr_lightning.cli.missing_tasks import settle_tasks
from dgr_lightning.config import Config
from dgr_lightning.data.hub import dataset_available
from dgr_lightning.errors import UserError
from dgr_lightning.models.hub import model_available, unreachable


def require(cfg: Config, command: str) -> None:
    """Checks that everything a command reads is local, cached, or on a hub that answers; `evaluation.missing` says what then.

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
    if command == "refine":
        return
    settle_tasks(cfg.evaluation)


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
