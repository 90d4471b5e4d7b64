"""Several models on one command line: `evaluate.py 'models=[A,B,C]'` measures each as the same command with it alone would, in
the directory that this one has, and compares them.

So nothing is measured twice: a model that was measured before is read, one that was interrupted goes on, and a training whose
tuned model was measured in the same way brings its own outputs. All command lines are composed and checked before the first
model is loaded; a model that fails lets the others run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.cli import hints
from dgr_lightning.cli.compare import compare
from dgr_lightning.cli.compose import compose_line
from dgr_lightning.cli.failures import BAD_CONFIG, DONE, FAILED, NO_FAILURES, exit_code, in_short, show_error, show_failure
from dgr_lightning.cli.overrides import CommandLine, choices, read_command_line
from dgr_lightning.cli.resolve import resolve
from dgr_lightning.config import Config
from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import require_file_locks
from dgr_lightning.files import exists, local_path
from dgr_lightning.installation import script_name
from dgr_lightning.models.adapter_folder import is_adapter
from dgr_lightning.models.folder import ADAPTER_CONFIG
from dgr_lightning.pipeline.place import Place

_KEY = "models"
_OF_ONE = ("model", "model.path", "model.hub_id", "model.revision", "hydra.run.dir")
"""Keys that say what a single model is, or where its run goes."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")

Main = Callable[[Config, Place], Any]


@dataclass(frozen=True)
class Named:
    """A model as the command line names it.

    Attributes:
        given: its text.
        overrides: that name it where it stands alone.
        training: run directory of the training that it came from, as far as it was named by that; None otherwise.
    """

    given: str
    overrides: tuple[str, ...]
    training: Path | None = None


def run(main: Main, line: CommandLine, arguments: Sequence[str]) -> int:
    """Evaluates the models of a command line, compares them, and returns the exit code: 0, 1 failed, 2 bad input.

    Args:
        main: evaluates one model.
        line: the command line as it was read.
        arguments: the same as it was written.

    Raises:
        UserError: a model cannot be found, or the command line does not go with several; nothing was evaluated then.
    """
    from dgr_lightning.console import silence

    _check(line)
    models = [named(given, line.folders) for given in line.models]
    if "model.base" in line.given and not any(is_adapter(local_path(model.given)) for model in models):
        raise UserError(f"model.base=… belongs to adapters, and none of the models is one ({ADAPTER_CONFIG}); leave it out.")
    shared = [argument for argument in arguments if argument.lstrip("+").partition("=")[0] != _KEY]
    lines = [read_command_line([*_without_base(shared, model), *model.overrides], "evaluate") for model in models]
    configs = [compose_line(one, "evaluate") for one in lines]
    if configs[0].engine.name == "server":
        raise UserError(
            f"{_KEY}=[{','.join(line.models)}] with engine=server: a server is one model. Measure one at a time, each with its "
            f"engine.url, then compare the runs: {script_name('compare')} RUN RUN."
        )
    require_file_locks()
    for number, (own, cfg) in enumerate(zip(lines, configs, strict=True)):
        with silence() if number else nullcontext():  # what the first one is told holds for all
            resolve(cfg, "evaluate", own.given)
    directories: dict[str, str] = {}
    failures: list[tuple[str, BaseException]] = []
    for number, (model, cfg) in enumerate(zip(models, configs, strict=True), start=1):
        _announce(number, len(models), model)
        try:
            directories[model.given] = _measured(main, model, cfg)
        except NO_FAILURES:
            raise
        except BaseException as error:
            show_failure(error)
            failures.append((model.given, error))
    _show_failures(failures, len(models))
    code = max((exit_code(error) for _, error in failures), key=(DONE, BAD_CONFIG, FAILED).index, default=DONE)
    if len(directories) < 2:
        return code
    _check_different(directories)
    from dgr_lightning.experiments.comparison import default_folder

    compared = list(directories.values())
    compare(compared, default_folder(compared, Path("runs") / configs[0].name))
    return code


def named(given: str, folders: tuple[Path, ...]) -> Named:
    """Returns what an entry of `models` names: a choice of conf/model, a run, a folder, or an id on the hub, in this order.

    Raises:
        UserError: nothing of these.
    """
    if given in choices("model", folders):
        return Named(given, (f"model={given}",))
    path = local_path(given)
    if exists(path):
        if not path.is_dir():
            raise UserError(f"{_KEY}: {given} is a file; name a run, or the folder of a model.")
        if (path / "config.json").is_file() or (path / ADAPTER_CONFIG).is_file():
            training = path.parent if path.name == "model" and _is_training(path.parent) else None
            return Named(given, (f"model.path={hints.quoted(given)}",), training)
        if _is_training(path) and (path / "model").is_dir():
            return Named(given, (f"model.path={hints.quoted(str(path / 'model'))}",), path)
        if (path / "summary.json").is_file():
            raise UserError(
                f"{_KEY}: {given} is a finished run of {script_name('evaluate')} or {script_name('refine')}, no model. Name "
                f"the model that it measured; {script_name('compare')} compares finished runs."
            )
        hints.refuse_run(path, _KEY)
        raise UserError(f"{_KEY}: {given} holds no model (config.json, or {ADAPTER_CONFIG} of an adapter) and is no run.")
    if _HUB_ID.fullmatch(given):
        hub_id, _, revision = given.partition("@")
        pinned = (f"model.revision={hints.quoted(revision)}",) if revision else ()
        return Named(given, (f"model.hub_id={hints.quoted(hub_id)}", *pinned))
    raise UserError(
        f"{_KEY}: {given} is no folder here (looked in {Path.cwd()}), no id on the hub (owner/name), and none of "
        f"{', '.join(choices('model', folders))}."
    )


def _without_base(arguments: Sequence[str], model: Named) -> list[str]:
    """Returns the arguments that a model reads: model.base is for the adapters among them alone."""
    if is_adapter(local_path(model.given)):
        return list(arguments)
    return [argument for argument in arguments if argument.lstrip("+").partition("=")[0] != "model.base"]


def _is_training(path: Path) -> bool:
    return (path / "stages" / "train.json").is_file()


def _check(line: CommandLine) -> None:
    """Raises a UserError where a command line does not go with several models."""
    shown = f"{_KEY}=[{','.join(line.models)}]"
    if line.sweep:
        raise UserError(
            f"{shown} with -m: the models are run one after the other already; leave out -m, or sweep over model.path."
        )
    for key in _OF_ONE:
        if key in line.given or (key == "hydra.run.dir" and line.directory is not None):
            other = "name=<name> puts all of them into runs/<name>" if key == "hydra.run.dir" else f"leave out {key}"
            raise UserError(f"{shown} with {key}: each model has a run of its own; {other}.")
    if len(line.models) < 2:
        raise UserError(f"{shown}: a comparison takes two models or more; for one write model.path=<folder>.")
    if len(set(line.models)) < len(line.models):
        raise UserError(f"{shown}: a model is named twice.")


def _measured(main: Main, model: Named, cfg: Config) -> str:
    """Returns the directory of the run that holds a model's outputs, made now if it has to be."""
    from rich.markup import escape

    from dgr_lightning.console import say
    from dgr_lightning.pipeline.measurements import tuned_is_measured

    if model.training is not None and not cfg.overwrite and tuned_is_measured(model.training, cfg):
        say(f"{escape(str(model.training))} has measured its tuned model in this way; its outputs are taken.")
        return str(model.training)
    return _run(main, cfg)


def _run(main: Main, cfg: Config) -> str:
    place = Place()
    main(cfg, place)
    assert place.directory is not None, "an evaluation opens its directory"
    return str(place.directory)


def _check_different(directories: dict[str, str]) -> None:
    """Raises a UserError where two of the models are one: their contents are equal, and so is their run."""
    first: dict[str, str] = {}
    for given, directory in directories.items():
        if directory in first:
            raise UserError(f"{_KEY}: {first[directory]} and {given} hold the same model; there is nothing to compare.")
        first[directory] = given


def _announce(number: int, count: int, model: Named) -> None:
    from rich.markup import escape

    from dgr_lightning.console import console

    console.rule(f"model {number} of {count}: {escape(model.given)}", align="left")


def _show_failures(failures: Sequence[tuple[str, BaseException]], count: int) -> None:
    if failures:
        lines = "".join(f"\n  {given}: {in_short(error)}" for given, error in failures)
        others = "; the others are done" if len(failures) < count else ""
        show_error(f"{len(failures)} of {count} models could not be measured{others}.{lines}")
