"""The entry points' frame: a command line is read, composed, checked and run; how it ends is an exit code.

Hydra composes YAML, sweeps and launches; by itself it lets `+foo=1` past any schema, ends with exit code 1, and stops a whole
sweep at a point that does not compose. So every override is read first, composition is untyped, and the result is held to the
schema point by point:

    keys and choices exist → composition → types and ranges → pairs and paths → cache, hub → `auto` becomes a value → stages
                                                                               └ plan=true ends here

Everything up to the hub happens before torch is imported. A mistake ends in one message that names the override, exit code 2.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dgr_lightning import __version__
from dgr_lightning.cli import sweep_points
from dgr_lightning.cli.compose import hydra_message, is_hydra_error, place_of, register_schema, typed
from dgr_lightning.cli.failures import (
    BAD_CONFIG,
    DONE,
    FAILED,
    INTERRUPTED,
    NO_FAILURES,
    TERMINATED,
    end_without_threads,
    exit_code,
    in_short,
    show_error,
    show_failure,
    show_stopped,
)
from dgr_lightning.cli.overrides import CommandLine, read_command_line
from dgr_lightning.cli.resolve import resolve
from dgr_lightning.cli.sweep_table import show_points
from dgr_lightning.config import Config
from dgr_lightning.distributed import torchrun
from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import require_file_locks
from dgr_lightning.installation import CONF
from dgr_lightning.pipeline.place import Place
from dgr_lightning.processes import sigterm_raises

# A sweep with several kinds of failures ends with the code of the last kind in this order.
_SEVERITY = (DONE, BAD_CONFIG, FAILED)

Main = Callable[[Config, Place], Any]
"""The work of a script on a checked config. Its result is the objective of the sweep point."""


def entry(command: str) -> Callable[[Main], Callable[[], None]]:
    """Makes a function of (config, place) the entry point of a script, or of a console command.

    Args:
        command: `train`, `refine` or `evaluate`: the file of conf/ that is composed.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def script() -> None:
            code = run(main, command, sys.argv[1:])
            if code in (INTERRUPTED, TERMINATED):
                end_without_threads(code)
            sys.exit(code)

        return script

    return decorate


def run(main: Main, command: str, arguments: list[str]) -> int:
    """Runs a command line, one run or a sweep, and returns the exit code: 0, 1 failed, 2 bad input, 130 or 143 stopped."""
    with sigterm_raises():
        return _on_any_machine(main, command, arguments)


def _on_any_machine(main: Main, command: str, arguments: list[str]) -> int:
    if torchrun.is_active():
        from dgr_lightning.distributed import multi_node

        if not torchrun.is_first():
            try:
                return multi_node.serve()
            except KeyboardInterrupt as stop:
                return show_stopped(stop)
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
            return DONE
        if "--version" in arguments:
            print(f"dgr-lightning {__version__}")
            return DONE
        line = read_command_line(arguments, command)
        if line.models and (line.sweep or not line.shows):
            from dgr_lightning.cli import several_models

            return several_models.run(main, line, arguments)
        return _sweep(main, command, line) if line.sweep else _single(main, command, line)
    except UserError as error:
        show_error(str(error))
        return BAD_CONFIG
    except KeyboardInterrupt as stop:
        return show_stopped(stop)


def _single(main: Main, command: str, line: CommandLine) -> int:
    codes = [DONE]  # of the run, if Hydra comes as far as that

    def point(composed: Any) -> None:
        try:
            _run_point(main, command, line, composed, [])
        except NO_FAILURES:
            raise
        except BaseException as error:
            codes.append(exit_code(error))
            show_failure(error)

    _through_hydra(point, command, line)
    return codes[-1]


def _sweep(main: Main, command: str, line: CommandLine) -> int:
    with sweep_points.outcome_folder() as folder:
        unwritten: list[sweep_points.PointOutcome] = []  # of points of this process, where the cache has no room

        def note(outcome: sweep_points.PointOutcome) -> None:
            if not sweep_points.write_outcome(folder, outcome):
                unwritten.append(outcome)

        def point(composed: Any) -> Any:
            return _sweep_point(main, command, line, note, composed)

        code, failed = DONE, False
        root = Path(line.directory or "runs")  # where Hydra writes a file of its own
        was_there = root.exists()
        try:
            with sweep_points.failures_shown_once():
                _through_hydra(point, command, line)
        except sweep_points.PointFailed:
            failed = True  # it is among the outcomes, unless it ran in a process that had no room for them
        except Exception as error:
            if isinstance(error, UserError) and not sweep_points.read_outcomes(folder):
                raise
            show_failure(error)
            code = FAILED
        finally:
            if not was_there:
                sweep_points.remove_unused(root)
        outcomes = sorted([*sweep_points.read_outcomes(folder), *unwritten], key=lambda outcome: outcome.number)
        if failed and all(outcome.code == DONE for outcome in outcomes):
            code = FAILED
        show_points(outcomes)
        return max(code, sweep_points.sweep_exit_code(outcomes), key=_SEVERITY.index)


def _sweep_point(
    main: Main, command: str, line: CommandLine, note: Callable[[sweep_points.PointOutcome], None], composed: Any
) -> Any:
    """Runs a point, in the process that the launcher chose, and returns its objective."""
    from hydra.core.hydra_config import HydraConfig
    from rich.markup import escape

    from dgr_lightning.console import console

    hydra_cfg = HydraConfig.get()
    number, overrides = int(hydra_cfg.job.num), [override.lstrip("+") for override in hydra_cfg.overrides.task]
    console.rule(f"point {number + 1}: {escape(' '.join(overrides))}", align="left")
    places: list[Place] = []

    def outcome(code: int, message: str = "") -> sweep_points.PointOutcome:
        run = places[0] if places else Place()
        directory = "" if run.directory is None else str(run.directory)
        return sweep_points.PointOutcome(number, overrides, code, message, directory, run.shown)

    try:
        objective = _run_point(main, command, line, composed, places)
    except NO_FAILURES:
        raise
    except BaseException as error:
        show_failure(error)
        summary = in_short(error)
        note(outcome(exit_code(error), summary[:300]))
        raise sweep_points.PointFailed(summary) from error
    note(outcome(DONE))
    return objective


def _run_point(main: Main, command: str, line: CommandLine, composed: Any, places: list[Place]) -> Any:
    """Runs a point and returns its objective; `places` receives where it goes, which the run then fills in."""
    cfg = typed(composed, command, line.folders, line.given)
    places.append(place := place_of(composed, line))
    if cfg.plan:
        from dgr_lightning.pipeline.plan import plan

        return plan(cfg, place, measures=command == "train")
    require_file_locks()
    resolve(cfg, command, line.given)
    if cfg.study.name is not None:
        if line.sweep:
            raise UserError(f"study.name={cfg.study.name}: a study sweeps by itself; run it without -m.")
        from dgr_lightning.experiments.study import run_study

        return run_study(cfg, line.of_each_run(), line.given)
    return main(cfg, place)


def _through_hydra(point: Callable[[Any], Any], command: str, line: CommandLine) -> None:
    """Has Hydra compose and run sweep_points.

    Raises:
        UserError: what Hydra says of the command line.
    """
    import hydra

    register_schema()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting with 1
    sys.argv = [sys.argv[0], *line.flags, *line.overrides]
    try:
        hydra.main(config_path=str(CONF), config_name=command, version_base="1.3")(point)()
    except sweep_points.PointFailed:
        raise
    except Exception as error:
        if is_hydra_error(error):
            raise UserError(hydra_message(error)) from error
        raise
