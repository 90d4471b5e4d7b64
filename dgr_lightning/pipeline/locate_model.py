"""Finds the target model: a local folder, the miniature (shipped, or grown on first use), or a snapshot from the hub.

A folder with an adapter becomes one with the whole model: the adapter added to its base.
"""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import Config, ModelConfig
from dgr_lightning.distributed.devices import resolve_precision
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.errors import UserError
from dgr_lightning.models.adapter_folder import base_of, check_adapter, is_adapter
from dgr_lightning.models.folder import check_folder, check_unquantised
from dgr_lightning.models.hub import fetch_model
from dgr_lightning.pipeline.served_model import is_served


def locate(model: ModelConfig) -> Path:
    """Returns the local folder of the target model: `path`, else the recipe's (shipped, or grown on first use), else the hub's.

    Raises:
        UserError: the model is neither local nor on a hub that answers, or its folder is not whole.
    """
    if model.path is not None:
        folder = Path(model.path).expanduser()
        if is_adapter(folder):
            return _merged(folder, model)
        check_folder(folder, f"model.path={model.path}")
        return folder
    if model.recipe is not None:
        from dgr_lightning.micro.build import provide

        return provide(model.seed, model.grow, cache_dir(), resolve_precision("auto", "cpu"))
    return fetch_model(_hub_id(model), model.revision, with_code=model.trust_remote_code)


def subject(cfg: Config) -> ModelHandle:
    """Returns the model that an evaluation measures.

    Raises:
        UserError: as `locate`.
    """
    served = is_served(cfg)
    return ModelHandle(locate_tokenizer(cfg.model) if served else locate(cfg.model), cfg, served)


def locate_tokenizer(model: ModelConfig) -> Path:
    """Returns a local folder with config and tokenizer of the target model, and perhaps no weights; nothing is grown.

    Raises:
        UserError: they are neither local nor on a hub that answers.
    """
    if model.path is not None:
        folder = Path(model.path).expanduser()
        check_folder(folder, f"model.path={model.path}", weights=False)
        return folder
    if model.recipe is not None:
        from dgr_lightning.micro.build import SHIPPED

        return SHIPPED  # the vocabulary follows from the language, not from the seed
    return fetch_model(_hub_id(model), model.revision, with_code=model.trust_remote_code, weights=False)


def _merged(adapter: Path, model: ModelConfig) -> Path:
    """Returns the folder of an adapter's whole model, made on first use."""
    from dgr_lightning.training.merged_adapter import merged

    named = f"model.path={model.path}"
    check_adapter(adapter, named)
    base = base_of(adapter, model.base, named)
    if base.folder is not None:
        check_folder(base.folder, f"{named}: its base {base.folder}")
    folder = base.folder or fetch_model(base.hub_id or "", base.revision, with_code=model.trust_remote_code)
    check_unquantised(folder)
    return merged(adapter, folder, named, model.trust_remote_code)


def _hub_id(model: ModelConfig) -> str:
    if model.hub_id is None:
        raise UserError("model.path is not set: name a local Hugging Face folder, or choose another model=….")
    return model.hub_id
