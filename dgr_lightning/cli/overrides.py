"""The command line, read before Hydra composes: flags, overrides, and where the run goes.

Every override is held to the groups and keys that exist, so that a typing error costs nothing and is named as such. Keys of the
schema are then handed to Hydra as `++key=value`: whether a YAML file happens to mention a key makes no difference to the user.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dgr_lightning.cli import hints
from dgr_lightning.config import schema
from dgr_lightning.config.keys import keys
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.files import exists, local_path
from dgr_lightning.installation import CONF, script_name
from dgr_lightning.models.folder import language

# A source given by path or hub id without its group: the group's choice that holds nothing but that source.
_LOCAL = "local"
_PARTS = "data.mix"
_MODELS = "models"
# What Hydra's --info shows.
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
# The same of data.mix.
_MIX = "mix"


@dataclass
class CommandLine:
    """A command line that can be composed.

    Attributes:
        overrides: what Hydra gets.
        flags: Hydra's own flags, such as -m or --cfg job.
        given: the keys and groups that the user named.
        sweep: whether -m was given.
        folders: with the YAML of the groups: conf/, and the folder of --config-dir.
        directory: what hydra.run.dir= says, kept from Hydra, which would make it at once; in a sweep hydra.sweep.dir=.
        models: the entries of models=; none where one model is run.
    """

    overrides: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    given: frozenset[str] = frozenset()
    sweep: bool = False
    folders: tuple[Path, ...] = (CONF,)
    directory: str | None = None
    models: tuple[str, ...] = ()

    @property
    def shows(self) -> bool:
        """Whether a flag asks for something to be shown instead of run, such as --cfg job."""
        flags = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
        return any(flag.partition("=")[0] in flags for flag in self.flags)

    def of_each_run(self) -> list[str]:
        """Returns the overrides that a study passes on to its runs: all but the study's own, and where its runs go."""
        own = ("experiment=", "++study.", "++name=")
        return [override.removeprefix("++") for override in self.overrides if not override.startswith(own)]


@cache
def groups(command: str) -> dict[str, str | None]:
    """Returns the config groups of a command and what each is by default, in the order of its defaults list."""
    import yaml

    listed = yaml.safe_load((CONF / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: choice for entry in listed if isinstance(entry, dict) for group, choice in entry.items()}


def choices(group: str, folders: tuple[Path, ...] = (CONF,)) -> list[str]:
    """Returns the choices of a config group: its YAML files, numbers in their names in order of size."""
    names = {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
    return sorted(names, key=_natural)


def _natural(name: str) -> list[str | float]:
    """Returns what sorts r1-distill-7b before r1-distill-14b: text and numbers in turn."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [float(part) if index % 2 else part for index, part in enumerate(parts)]


def read_command_line(arguments: list[str], command: str) -> CommandLine:
    """Reads and checks a command line.

    Args:
        arguments: what follows the script's name.
        command: `train`, `refine` or `evaluate`.

    Raises:
        UserError: an argument is no override, or names a key or a choice that does not exist; the message says which do.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        # Intermixed: overrides may stand on both sides of a flag.
        known, unknown = _flags().parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}.") from error
    if unknown:
        raise UserError(hints.no_flag(unknown[0], arguments, groups(command)))
    if known.config_name or known.config_path or known.experimental_rerun:
        raise UserError(
            "--config-name, --config-path and --experimental-rerun: not taken; --config-dir=<folder> adds YAML of your own."
        )
    if known.package and not (schema.is_key(known.package) or known.package in ("_global_", "hydra")):
        raise UserError(f"--package {known.package}: {schema.unknown_key(known.package)}")
    line = CommandLine(sweep=bool(known.multirun))
    line.flags = [argument for argument in arguments if argument not in known.overrides]
    folders = (CONF,) if known.config_dir is None else (CONF, local_path(known.config_dir))
    line.folders = folders
    parser, parsed = OverridesParser.create(), []
    for index, text in enumerate(known.overrides):
        if ("=" not in text and not text.startswith("~")) or text.startswith("="):
            table = {group: choices(group, folders) for group in groups(command)}
            raise UserError(hints.no_override(known.overrides, index, command, table))
        parsed.append(hints.parse(text, parser, sweep=line.sweep))
    hints.refuse_repeated(parsed)
    line.given = frozenset(override.key_or_group for override in parsed)
    line.models = _models(parsed, command)
    for override in parsed:
        line.overrides.extend(_checked(override, command, line, folders))
    line.overrides.extend(_implied(parsed, command, line.given, folders))
    return line


def _models(parsed: list[Any], command: str) -> tuple[str, ...]:
    """Returns the entries of models=, which only an evaluation takes."""
    for override in parsed:
        if override.key_or_group != _MODELS:
            continue
        text = override.input_line
        if command != "evaluate":
            raise UserError(f"{text}: only {script_name('evaluate')} takes several models; sweep over model here, with -m.")
        values = [value for value in _values(override) if value is not None]
        if override.is_sweep_override() or len(values) != 1 or not isinstance(values[0], list):
            raise UserError(f"{text}: expected a list, such as '{_MODELS}=[runs/dgr/<run>,Qwen/Qwen3-0.6B]'.")
        return tuple(str(entry) for entry in values[0])
    return ()


def _flags() -> argparse.ArgumentParser:
    """Returns a parser of the flags that Hydra's command line has; those that are not taken here are named, to be refused."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flags.add_argument("overrides", nargs="*")
    flags.add_argument("--multirun", "-m", action="store_true")
    flags.add_argument("--run", "-r", action="store_true")
    flags.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    flags.add_argument("--resolve", action="store_true")
    flags.add_argument("--package", "-p")
    flags.add_argument("--info", "-i", nargs="?", const="all", choices=_INFO)
    flags.add_argument("--config-dir", "-cd")
    flags.add_argument("--hydra-help", action="store_true")
    flags.add_argument("--shell-completion", "-sc", action="store_true")
    for refused in (("--config-name", "-cn"), ("--config-path", "-cp"), ("--experimental-rerun",)):
        flags.add_argument(*refused)
    return flags


def _checked(override: Any, command: str, line: CommandLine, folders: tuple[Path, ...]) -> Iterator[str]:
    """Yields what Hydra gets for an override, if anything, or raises a UserError."""
    text, key = override.input_line, override.key_or_group
    if key in ("hydra.run.dir", "hydra.sweep.dir"):
        if line.sweep != (key == "hydra.sweep.dir"):
            other = "hydra.sweep.dir" if line.sweep else "hydra.run.dir"
            raise UserError(f"{text}: with{'' if line.sweep else 'out'} -m it is {other}=<folder>.")
        if override.is_sweep_override() or not override.value():
            raise UserError(f"{text}: expected one folder.")
        line.directory = str(override.value())
        if line.sweep:
            yield text
        return
    if key.startswith(("hydra.", "hydra/")):
        if key.endswith("._target_"):
            raise UserError(f"{text}: a launcher or a sweeper is chosen by its file, such as hydra/launcher=joblib.")
        yield text
        return
    if override.is_delete():
        raise UserError(f"{text}: keys are not deleted. Set a value, or null where the key takes it.")
    if override.package is not None:
        raise UserError(f"{text}: packages (@) are not taken; write {key}=….")
    if override.is_sweep_override() and not line.sweep:
        value = text.partition("=")[2]
        is_list = key in keys() and keys()[key].field.default_factory is not MISSING
        other = f"write a list as {key}=[{value}]" if is_list else "quote text that has commas"
        raise UserError(f"{text}: several values. Add -m to run each of them, or {other}.")
    _check_sweep(override)
    table = groups(command)
    if key in table or (exists(CONF / key) and (CONF / key).is_dir()):
        if key not in table:
            raise UserError(f"{text}: {script_name(command)} has no use for {key}. Its groups: {', '.join(table)}.")
        _check_choice(override, choices(key, folders), optional=table[key] is None)
        yield text.lstrip("+")
        return
    if key.startswith(f"{_PARTS}.") or (key == _PARTS and not _holds_lists(override)):
        raise UserError(f"{text}: parts are written as a whole, in one list: {_PARTS}='[{{data: star1, share: 1}}]'.")
    if not schema.is_key(key):
        named = hints.keys_named(key, table) if "." not in key else []
        meant = f" Write {named[0]}={text.partition('=')[2]}." if len(named) == 1 else ""
        raise UserError(f"{text}: {schema.unknown_key(key, table)}{meant}")
    hints.refuse_none(override)
    if not override.is_sweep_override():
        schema.check_mapping(key, override.value())
    yield f"++{text.lstrip('+')}"


def _check_sweep(override: Any) -> None:
    """Raises a UserError where an override sweeps over nothing, or without an end."""
    from hydra.core.override_parser.types import RangeSweep

    sweep = override.value()
    if not isinstance(sweep, RangeSweep):
        return
    start, stop, step = (float(number or 0) for number in (sweep.start, sweep.stop, sweep.step))
    if not math.isfinite(start + stop + step) or (stop - start) * step <= 0:
        raise UserError(
            f"{override.input_line}: no range of values; write range(<first>,<end>) or range(<first>,<end>,<step>)."
        )


def _check_choice(override: Any, known: list[str], *, optional: bool) -> None:
    """Raises a UserError where an override of a group takes a choice that has no file."""
    from hydra.core.override_parser.types import Glob

    text, group = override.input_line, override.key_or_group
    if isinstance(override.value(), Glob) and not override.value().filter(known):
        raise UserError(f"{text}: no {group} is called like that. Choices: {', '.join(known)}.")
    for value in _values(override):
        if value is None and optional:
            continue
        if isinstance(value, (list, dict)):
            raise UserError(f"{text}: {group} takes one choice. To run several, add -m and write {group}=a,b.")
        name = "null" if value is None else str(value)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hinted = hints.other_choice(group, name, known) or (f" Did you mean {near[0]}?" if near else "")
            raise UserError(f"{text}: no {group} {name!r}.{hinted} Choices: {', '.join(known)}.")


def _holds_lists(override: Any) -> bool:
    return all(value is None or isinstance(value, list) for value in _values(override))


def _values(override: Any) -> list[Any]:
    """Returns the value of an override, or all of a sweep's."""
    from hydra.core.override_parser.types import Glob

    if isinstance(override.value(), Glob):
        return []  # Hydra knows its choices, when it composes
    if override.is_sweep_override():
        return list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    return [override.value()]


def _implied(parsed: list[Any], command: str, given: frozenset[str], folders: tuple[Path, ...]) -> Iterator[str]:
    """Yields the choice of model and of data that follows from a path, a hub id or a mixture given without one.

    The default choices are the miniature's: its field map, language and budgets must not be put on somebody's own model or
    rows. A folder whose config names the miniature's language was grown by this project, or trained further, and stays one.
    """
    by_key = {override.key_or_group: override for override in parsed}
    if "checkpoints" in given and command == "evaluate" and not given & {"model", "model.path", "model.hub_id"}:
        trained = [local_path(str(value)) / "model" for value in _values(by_key["checkpoints"]) if value is not None]
        yield from (f"++model.path={folder}" for folder in trained[:1])
        if trained and language(trained[0]) != "micro":
            yield f"model={_LOCAL}"
    experiments = _experiments(by_key.get("experiment"), folders)
    decided = given | _groups_decided(experiments)
    sections = [experiment.get("data") for experiment in experiments]
    mixed = bool(sections) and all(isinstance(section, dict) and section.get("mix") for section in sections)
    if "data" in groups(command) and "data" not in decided and ("data.mix" in given or mixed):
        yield f"data={_MIX}"
        decided |= {"data"}
    for group in ("model", "data"):
        sources = [key for key in (f"{group}.path", f"{group}.hub_id") if key in given]
        if sources and f"{group}.base" in given:  # an adapter speaks the language of its base
            sources = [f"{group}.base"]
        if group not in groups(command) or group in decided or not sources:
            continue
        values = [value for key in sources for value in _values(by_key[key]) if value is not None]
        grown = {group == "model" and language(local_path(str(value))) == "micro" for value in values}
        if grown == {False}:
            yield f"{group}={_LOCAL}"
        elif len(grown) > 1:
            raise UserError(
                f"{by_key[sources[0]].input_line}: some of these are miniatures and some are not; give {group}= too."
            )
    for source in ("model", "data", "data.benign"):
        if f"{source}.hub_id" in given and f"{source}.revision" not in given:
            yield f"++{source}.revision=null"  # the pinned commit is one of the repository that was chosen before


def _experiments(override: Any, folders: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Returns the YAML of the chosen experiments."""
    names = _values(override) if override is not None else []
    files = [file for name in names for folder in folders if (file := folder / "experiment" / f"{name}.yaml").is_file()]
    return [_read_experiment(file) for file in files]


def _read_experiment(file: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(f"experiment={file.stem}: {file} cannot be read ({one_line(error, 200)}).") from error
    if not isinstance(found, dict) or not isinstance(found.get("defaults") or [], list):
        raise UserError(f"experiment={file.stem}: {file} holds no keys with values, or its defaults are no list.")
    return found


def _groups_decided(experiments: list[dict[str, Any]]) -> set[str]:
    """Returns the groups that experiments decide by themselves."""
    entries = [entry for experiment in experiments for entry in experiment.get("defaults") or []]
    names = [key for entry in entries if isinstance(entry, dict) for key in entry]
    return {name.removeprefix("override").strip().lstrip("/") for name in names}
