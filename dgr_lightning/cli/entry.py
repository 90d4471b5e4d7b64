"""From the command line to a checked config: the only module that runs Hydra.

Hydra composes YAML, sweeps and launches; by itself it lets `+foo=1` past any schema, ends with exit code 1, and stops a whole
sweep at a point that does not compose. So every override is read first, composition is untyped, and the result is held to the
schema point by point:

    keys and choices exist → composition → types and ranges → pairs and paths → cache, hub → `auto` becomes a value → stages

Everything up to the hub happens before torch is imported. What is wrong is one message that names the override, exit code 2.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dgr_lightning.cli import checks
from dgr_lightning.cli.overrides import CONF, CommandLine, read_command_line
from dgr_lightning.cli.resolve import resolve
from dgr_lightning.config import Config, schema
from dgr_lightning.distributed import torchrun
from dgr_lightning.errors import UserError
from dgr_lightning.pipeline.run_directory import Place

Main = Callable[[Config, Place], None]

BAD_CONFIG, FAILED, INTERRUPTED = 2, 1, 130


def entry(command: str) -> Callable[[Main], Callable[[], None]]:
    """Makes a function of (config, place) the entry point of a script.

    Args:
        command: `train`, `refine` or `evaluate`: the file of conf/ that is composed.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def script() -> None:
            sys.exit(run(main, command, sys.argv[1:]))

        return script

    return decorate


def run(main: Main, command: str, arguments: list[str]) -> int:
    """Runs a command line, one run or a sweep, and returns the exit code: 0, 1 failed, 2 bad config or input, 130 stopped."""
    if torchrun.is_active():
        from dgr_lightning.distributed import multi_node

        if not torchrun.is_first():
            return multi_node.serve()
        code = FAILED
        try:
            code = _run(main, command, arguments)
        finally:
            multi_node.stop_workers(code)
        return code
    return _run(main, command, arguments)


def _run(main: Main, command: str, arguments: list[str]) -> int:
    try:
        if {"--help", "-h"} & set(arguments):
            from dgr_lightning.cli.help import show_help

            show_help(command)
            return 0
        line = read_command_line(arguments, command)
        return _through_hydra(main, command, line)
    except UserError as error:
        _complain(str(error))
        return BAD_CONFIG
    except KeyboardInterrupt:
        _complain("what was generated and trained is kept: the same command goes on from there.", "stopped")
        return INTERRUPTED


def compose(command: str, overrides: list[str]) -> Config:
    """Returns the checked config of a command line without running anything; for scripts and tests.

    Raises:
        UserError: as on the command line.
    """
    import hydra

    line = read_command_line(overrides, command)
    _register_schema()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            composed = hydra.compose(command, overrides=line.overrides)
        except Exception as error:
            raise UserError(_hydra_message(error)) from error
    return _typed(composed, command)


# --- Hydra ----------------------------------------------------------------------------------------------------------------


def _through_hydra(main: Main, command: str, line: CommandLine) -> int:
    import hydra

    _register_schema()
    failures: list[BaseException] = []
    started: list[int] = []

    def point(composed: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        started.append(len(started) + 1)
        if line.sweep:
            _announce(started[-1], list(HydraConfig.get().overrides.task))
        try:
            cfg = _typed(composed, command)
            place = _place(composed, line)
            resolve(cfg, command, line.given)
            main(cfg, place)
        except Exception as error:
            failures.append(error)
            _report(error)
            if line.sweep:
                raise  # sweepers and launchers go by it, and the other points still run

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1
    sys.argv = [sys.argv[0], *line.flags, *line.overrides]
    try:
        hydra.main(config_path=str(CONF), config_name=command, version_base="1.3")(point)()
    except Exception as error:
        if not failures:
            if started or not _is_complaint(error):
                failures.append(error)
                _report(error)
            else:
                raise UserError(_hydra_message(error)) from error
    if line.sweep and failures:
        _complain(f"{len(failures)} of {len(started)} points failed; their messages are above. The others are done.", "sweep")
    if not failures:
        return 0
    return BAD_CONFIG if all(isinstance(error, UserError) for error in failures) else FAILED


def _register_schema() -> None:
    """Puts every key with its default into the composition, as plain values: types are checked at the door, point by point."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=schema.defaults())


def _typed(composed: Any, command: str) -> Config:
    """Returns the checked config of a composition."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_hydra_message(error)}") from error
    if isinstance(plain, dict):
        plain.pop("hydra", None)
    cfg = schema.build(plain)
    checks.settle(cfg)
    checks.check(cfg, command)
    return cfg


def _place(composed: Any, line: CommandLine) -> Place:
    """Returns where the run goes; hydra.run.dir= and hydra.sweep.dir= may hold interpolations such as ${seed}."""
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    if line.directory is None:
        return Place()
    with open_dict(composed):
        composed["place"] = line.directory
    try:
        path = Path(str(composed["place"])).expanduser()
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.{'sweep' if line.sweep else 'run'}.dir={line.directory}: {_hydra_message(error)}") from error
    return Place(root=path) if line.sweep else Place(exact=path)


def _is_complaint(error: Exception) -> bool:
    """Whether an exception before the first point is Hydra's way to say that something on the command line is wrong."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, (HydraException, OmegaConfBaseException, ValueError))


def _hydra_message(error: BaseException) -> str:
    """Returns the lines of Hydra's or OmegaConf's message that a user can use, its cause included."""
    lines = [line.strip() for line in str(error).splitlines()]
    if error.__cause__ is not None:
        lines += [line.strip() for line in str(error.__cause__).splitlines()]
    noise = ("See https://hydra.cc", "full_key:", "object_type=", "Config search path:", "provider=")
    return " ".join(dict.fromkeys(line for line in lines if line and not line.startswith(noise)))


def _announce(number: int, overrides: list[str]) -> None:
    from dgr_lightning.console import console

    console.rule(f"point {number}: {' '.join(override.lstrip('+') for override in overrides)}", align="left")


def _report(error: BaseException) -> None:
    """Shows why a run failed: a user error by its message, anything else by its traceback and one line that says what to do."""
    if isinstance(error, UserError):
        _complain(str(error))
        return
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    traceback.print_exception(type(error), error, frames)
    _complain(
        f"{type(error).__name__}: {error} (traceback above). What was generated and trained is kept: the same command goes on "
        "from there.",
        "the run failed",
    )


def _complain(message: str, title: str = "error") -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]{title}:[/] {escape(message)}")
