"""vLLM on the nodes of a Ray cluster, through Ray Data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config
from dgr_lightning.engines.spec import INSTALL_FOR_CPU, INSTALL_FOR_GPU, EngineSpec, Requirement
from dgr_lightning.engines.vllm import READS, VLLM

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import ModelText
    from dgr_lightning.engines.ray.engine import RayEngine

_RAY = Requirement(("ray",), f"Ray is not installed here. On GPUs: {INSTALL_FOR_GPU}; on a CPU: {INSTALL_FOR_CPU}.")


def _open(cfg: Config, folder: Path, chat: ModelText) -> RayEngine:
    from dgr_lightning.engines.ray.engine import RayEngine

    return RayEngine(folder, chat, cfg.engine, cfg.trainer.accelerator, cfg.model.trust_remote_code)


ENGINE = EngineSpec(open=_open, reads=(*READS, "ray_address"), requires=(VLLM, _RAY))
