"""Which engine a run gets: the engines found here, whether they can run on this machine, and what `auto` becomes.

Installed packages are looked up in their metadata, without importing them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config
from dgr_lightning.engines.spec import EngineSpec
from dgr_lightning.errors import UserError
from dgr_lightning.registry import Registry

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import Engine, ModelText

ENGINES: Registry[EngineSpec] = Registry(
    "engine.name",
    "dgr_lightning.engines",
    "ENGINE",
    folders_only=True,
    is_member=lambda found: isinstance(found, EngineSpec),
)

AUTO = "auto"
"""The value of `engine.name` that becomes an engine's name here: vllm where it runs on this machine, else transformers."""


def check_engine(cfg: Config) -> None:
    """Checks that the settings of `engine` go together; before `auto` is resolved, as far as that is known.

    Raises:
        UserError: naming the override to change.
    """
    for name in ENGINES.names():
        if name != cfg.engine.name:
            ENGINES.get(name).check_others(cfg.engine)
    if cfg.engine.name != AUTO:
        ENGINES.get(cfg.engine.name).check(cfg.engine)


def require_engine(name: str) -> None:
    """Checks that an engine's packages are installed, without importing them.

    Raises:
        UserError: naming the requirements file.
    """
    if name == AUTO:
        return
    for requirement in ENGINES.get(name).requires:
        if not _installed(*requirement.distributions):
            raise UserError(f"engine={name}: {requirement.missing}")


def resolve_engine(name: str, device: str) -> tuple[str, str | None]:
    """Returns the engine that a run gets and, where it was chosen here, why.

    Args:
        name: `engine.name`.
        device: `cpu` or `cuda`, on which the run computes.

    Raises:
        UserError: the engine is named, and the build of it that is installed is for another device.
    """
    if name == AUTO:
        return _best_engine(device)
    builds = ENGINES.get(name).builds
    installed = [build for build in builds if _installed(build.distribution)]
    if builds and not any(build.device == device for build in installed):
        remedy = next(build.remedy for build in builds if build.device == device)
        raise UserError(
            f"engine={name}: the build of it that is installed ({', '.join(build.distribution for build in installed)}) has no "
            f"device here; the run computes on {device}. Take engine=transformers, or: {remedy}."
        )
    return name, None


def _best_engine(device: str) -> tuple[str, str]:
    """Returns the fastest engine that runs on a device, and why it is that one."""
    devices = [build.device for build in ENGINES.get("vllm").builds if _installed(build.distribution)]
    if device in devices:
        return "vllm", "vLLM is installed and has its device"
    return "transformers", f"vLLM is installed, but for {devices[0]}" if devices else "vLLM is not installed"


def open_engine(cfg: Config, folder: Path, chat: ModelText) -> Engine:
    """Starts the engine of a config over a model; its `close` frees what it holds.

    Args:
        cfg: `engine` and `trainer.accelerator` are values, not `auto`.
        folder: the Hugging Face folder.
        chat: its tokenizer.

    Raises:
        UserError: it does not start; the message says what to write instead.
    """
    return ENGINES.get(cfg.engine.name).open(cfg, folder, chat)


def _installed(*distributions: str) -> bool:
    """Whether any of these distributions is installed."""
    from importlib import metadata

    for distribution in distributions:
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False
