"""Any server with OpenAI's completions interface that takes token ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config, EngineConfig
from dgr_lightning.engines.server.url import check_url, require_url
from dgr_lightning.engines.spec import EngineSpec, Requirement
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import ModelText
    from dgr_lightning.engines.server.engine import ServerEngine


def _open(cfg: Config, folder: Path, chat: ModelText) -> ServerEngine:
    from dgr_lightning.engines.server.engine import ServerEngine

    engine = ServerEngine(chat, lambda text: chat.tokenizer.encode(text, add_special_tokens=False), cfg.engine, chat.marks)
    for section in (cfg.refine, cfg.evaluation):  # both now: the evaluation comes after refinement and training
        engine.check_top_k(section.top_k, section.temperature)
    return engine


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
