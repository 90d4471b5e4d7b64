"""From the command line to a checked config: the only module that knows Hydra and OmegaConf.

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

from dgr_lightning import checks, schema, torchrun
from dgr_lightning.command_line import CONF, CommandLine, read_command_line
from dgr_lightning.config import REFINE_KEYS, TUNING_KEYS, Config
from dgr_lightning.errors import UserError
from dgr_lightning.rundir import Place

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
    if torchrun.is_there():
        from dgr_lightning import crew

        if not torchrun.is_first():
            return crew.follow()
        code = FAILED
        try:
            code = _run(main, command, arguments)
        finally:
            crew.dismiss(code)
        return code
    return _run(main, command, arguments)


def _run(main: Main, command: str, arguments: list[str]) -> int:
    try:
        if {"--help", "-h"} & set(arguments):
            from dgr_lightning.help_page import show_help

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


def resolve(cfg: Config, command: str, given: frozenset[str]) -> None:
    """Checks that hub content can be had and turns every `auto` into the value that the run hash will hold.

    Args:
        cfg: a checked config; changed in place.
        command: `train`, `refine` or `evaluate`.
        given: keys that the command line names: what was asked for is never left out silently.

    Raises:
        UserError: something is neither local nor on a hub that can be reached, a device is not there, or the cache cannot be.
    """
    from dgr_lightning import availability
    from dgr_lightning.cache import require_cache
    from dgr_lightning.engines.choice import check_engine, require_engine, resolve_engine

    require_cache()
    require_engine(cfg.engine.name)
    availability.require(cfg, command)
    if command == "train" or (command == "refine" and cfg.shift.prompts):
        availability.drop_probes(cfg, asked_for="probes.tasks" in given)

    from dgr_lightning import models  # imports torch: from here on nothing of the config is wrong
    from dgr_lightning.console import say

    auto = [
        key
        for key in ("trainer.accelerator", "trainer.strategy", "trainer.precision", "engine.name", "engine.precision")
        if _of(cfg, key) == "auto"
    ]
    device = models.resolve_device(cfg.trainer.accelerator)
    cfg.trainer.accelerator = device
    models.resolve_devices(cfg.trainer)
    checks.check_devices(cfg.trainer)  # again, now that there are so many
    cfg.trainer.precision = models.resolve_precision(cfg.trainer.precision, device)
    if command == "train":
        checks.check_tuning(cfg)  # likewise
    cfg.engine.precision = models.resolve_precision(cfg.engine.precision, device)
    cfg.engine.name, why = resolve_engine(cfg.engine.name, device)
    if auto:
        say("auto: " + ", ".join(f"{key}={_of(cfg, key)}" for key in auto) + (f" ({why})" if why else ""))
    check_engine(cfg)  # again, now that it has a name
    unread = {f"engine={cfg.engine.name}": [key for key in given if _is_idle(key, "engine.", cfg)]}
    if command != "evaluate":
        unread[f"refine={cfg.refine.name or cfg.refine.strategy}"] = [key for key in given if _is_idle(key, "refine.", cfg)]
    if command == "train":
        unread[f"tuning={cfg.tuning.method}"] = [key for key in given if _is_idle(key, "tuning.", cfg)]
    for choice, keys in unread.items():
        if keys:
            say(f"[yellow]{', '.join(sorted(keys))}: not used by {choice}[/]")


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


# --- The screen -----------------------------------------------------------------------------------------------------------


def _of(cfg: Config, key: str) -> Any:
    section, name = key.split(".")
    return vars(vars(cfg)[section])[name]


def _is_idle(key: str, section: str, cfg: Config) -> bool:
    """Whether a key of `engine.`, `refine.` or `tuning.` is one that the chosen engine, strategy or method has no use for."""
    from dgr_lightning.engines.choice import reads

    if not key.startswith(section):
        return False
    name = key.removeprefix(section)
    if section == "engine.":
        return not reads(cfg.engine.name, name)
    if section == "tuning.":
        return name not in ("method", *TUNING_KEYS[cfg.tuning.method])
    return name not in ("name", "strategy", *REFINE_KEYS[cfg.refine.strategy])


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
