"""Finds the target model: a local folder, the miniature (shipped, or grown on first use), or a snapshot from the hub."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import ModelConfig
from dgr_lightning.distributed.devices import resolve_precision
from dgr_lightning.errors import UserError
from dgr_lightning.models.folder import check_folder
from dgr_lightning.models.hub import fetch_model


def locate(model: ModelConfig) -> Path:
    """Returns the local folder of the target model: `path`, else the recipe's (shipped, or grown on first use), else the hub's.

    Raises:
        UserError: the model is neither local nor on a hub that answers, or its folder is not whole.
    """
    if model.path is not None:
        folder = Path(model.path).expanduser()
        check_folder(folder, f"model.path={model.path}")
        return folder
    if model.recipe is not None:
        from dgr_lightning.micro.build import provide

        return provide(model.seed, model.grow, cache_dir(), resolve_precision("auto", "cpu"))
    return fetch_model(_hub_id(model), model.revision, with_code=model.trust_remote_code)


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


def _hub_id(model: ModelConfig) -> str:
    if model.hub_id is None:
        raise UserError("model.path is not set: name a local Hugging Face folder, or choose another model=….")
    return model.hub_id
