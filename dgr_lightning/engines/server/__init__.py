"""Any server with OpenAI's completions interface that takes token ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config, EngineConfig
from dgr_lightning.engines.server.url import check_url, require_url
from dgr_lightning.engines.spec import EngineSpec, Requirement
from dgr_lightning.errors import UserError
from dgr_lightning.tasks.settings import settings_of

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import ModelText
    from dgr_lightning.engines.server.engine import ServerEngine


def _open(cfg: Config, folder: Path, chat: ModelText) -> ServerEngine:
    from dgr_lightning.engines.server.engine import ServerEngine

    engine = ServerEngine(chat, lambda text: chat.tokenizer.encode(text, add_special_tokens=False), cfg.engine, chat.marks)
    # All now: the evaluation comes after refinement and training.
    engine.check_top_k(cfg.refine.top_k, cfg.refine.temperature)
    for settings in (settings_of(cfg.evaluation, name) for name in cfg.evaluation.tasks):
        engine.check_top_k(settings.top_k, settings.temperature)
        engine.check_penalty(settings.repetition_penalty)
    return engine


def only_model(engine: EngineConfig) -> str:
    """Returns the name of the model on the server of `engine.url`, or `engine.served_model`, which it has to serve.

    Raises:
        UserError: no server there, a key that it refuses, or several models to choose from.
    """
    from dgr_lightning.engines.server.capabilities import find_model
    from dgr_lightning.engines.server.client import Client

    client = Client(require_url(engine.url), 1, engine.timeout_seconds, engine.retries)
    try:
        return find_model(client, engine.served_model)[0]
    finally:
        client.close()


def _check(engine: EngineConfig) -> None:
    require_url(engine.url)


def _check_others(engine: EngineConfig) -> None:
    if engine.url is not None:
        check_url(engine.url)  # first: the message below shows the URL, and a wrong one may hold a key
        raise UserError(f"engine.url={engine.url}: only engine=server has a URL; write engine=server.")
    if engine.served_model is not None:
        raise UserError(
            f"engine.served_model={engine.served_model}: only engine=server asks for a model by name; write engine=server."
        )


ENGINE = EngineSpec(
    open=_open,
    reads=("batch_size", "max_length", "url", "served_model", "timeout_seconds", "retries"),
    requires=(Requirement(("httpx2",), "its HTTP client is not installed here: pip install -r requirements.txt."),),
    check=_check,
    check_others=_check_others,
)
