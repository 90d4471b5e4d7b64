"""Checks, before anything is loaded, that what a run needs from a hub is local or in reach: model, rows, tasks.

A run that cannot measure itself at the end should say so at the beginning. Local copies beat the hub everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from dgr_lightning.cli.missing_tasks import settle_tasks
from dgr_lightning.config import Config, DataConfig, JudgeConfig
from dgr_lightning.data.hub import GATED, UNREACHABLE, dataset_access
from dgr_lightning.errors import UserError
from dgr_lightning.files import local_path
from dgr_lightning.models.adapter_folder import base_of, is_adapter
from dgr_lightning.models.hub import cached_model, closed_to_us, hub_reachable, model_available, unreachable
from dgr_lightning.pipeline.served_model import is_served


def require(cfg: Config, command: str) -> None:
    """Checks that everything a command reads is local, cached, or on a hub that answers; `evaluation.missing` says what then.

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
    require_guards(cfg, command)
    if command == "refine":
        return
    require_endpoints(cfg)
    settle_tasks(cfg.evaluation)


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
    """Checks that the model and the data of a run are local, cached, or on a hub that hands them out.

    Local copies and recipes need no hub; their paths were checked before.

    Raises:
        UserError: the hub is needed and cannot be reached, one message for model and data, whichever is missing; or it hands
            out the data only to accounts that have accepted its terms.
    """
    model, data = cfg.model, cfg.data
    fetched = model.hub_id if not (model.path or model.recipe) else None
    away = fetched and not model_available(fetched, model.revision, with_code=model.trust_remote_code)
    access = {name: (hub_id, dataset_access(hub_id, revision)) for name, hub_id, revision in _data_on_hub(data)}
    missing = [f"model {fetched}"] if away else []
    missing += [name for name, (_, found) in access.items() if found == UNREACHABLE]
    in_its_place = f"data.path=<jsonl, json, csv or parquet file>{_already(data.path or data.recipe)}."
    copies = "path: <jsonl, json, csv or parquet file> in these parts of data.mix." if data.mix else in_its_place
    if missing:
        raise UserError(
            f"{unreachable()}, and these are not in the local cache: {', '.join(missing)}. Use local copies: "
            f"model.path=<folder with config.json, *.safetensors and tokenizer>{_already(model.path or model.recipe)} "
            + (f"and {copies}" if data.mix else copies)
        )
    gated = {name: hub_id for name, (hub_id, found) in access.items() if found == GATED}
    if gated:
        pages = "; ".join(f"{name}, https://huggingface.co/datasets/{hub_id}" for name, hub_id in gated.items())
        raise UserError(
            f"The hub hands these out only to accounts that have accepted their terms: {pages}. Accept them there, then log in "
            f"with `hf auth login`, or set HF_TOKEN. Or use a local copy: {copies}"
        )


def _data_on_hub(data: DataConfig) -> Iterator[tuple[str, str, str | None]]:
    """Yields name in messages, id and commit of every data set of a run that has no local copy."""
    if data.hub_id and not (data.path or data.recipe):
        yield f"data {data.hub_id}", data.hub_id, data.revision
    for key, part in data.parts:
        if part.hub_id:
            yield f"data {part.hub_id} ({key}.path)", part.hub_id, part.revision
    benign = data.benign
    if data.benign_ratio > 0 and benign.hub_id and not benign.path:
        yield f"benign data {benign.hub_id} (data.benign.path)", benign.hub_id, benign.revision


def _already(local: str | None) -> str:
    return f" (local already: {local})" if local else ""
