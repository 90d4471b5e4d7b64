"""Transformers with our own decoding loop: runs everywhere, and the noise of a token never depends on its batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config, EngineConfig
from dgr_lightning.engines.spec import EngineSpec
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import ModelText
    from dgr_lightning.engines.transformers.engine import TransformersEngine


def _open(cfg: Config, folder: Path, chat: ModelText) -> TransformersEngine:
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.models.weights import load_model

    model = load_model(folder, cfg.engine.precision, cfg.trainer.accelerator, cfg.model.trust_remote_code)
    return TransformersEngine(model, chat, cfg.engine.precision, cfg.engine.num_sequences)


def _check(engine: EngineConfig) -> None:
    for key, number in (("tensor_parallel", engine.devices_each), ("replicas", engine.replicas or 1)):
        if number > 1:
            raise UserError(
                f"engine.{key}={number}: engine=transformers is one engine on one device; write engine.{key}=1, or engine=vllm."
            )


ENGINE = EngineSpec(open=_open, reads=("batch_size",), check=_check)
