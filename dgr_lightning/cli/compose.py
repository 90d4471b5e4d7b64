"""From overrides to a checked config: Hydra composes, the schema checks. Nothing below `cli` knows OmegaConf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgr_lightning.cli import checks, judges, mixture
from dgr_lightning.cli.names import check_directory_name
from dgr_lightning.cli.overrides import CommandLine, read_command_line
from dgr_lightning.cli.registries import members
from dgr_lightning.config import Config, schema
from dgr_lightning.errors import UserError
from dgr_lightning.files import local_path
from dgr_lightning.installation import CONF
from dgr_lightning.pipeline.place import Place
from dgr_lightning.tasks.settings import drop_overridden


def compose(command: str, overrides: list[str]) -> Config:
    """Returns the checked config of a command line without running anything; for scripts and tests.

    Args:
        command: `train`, `refine` or `evaluate`: the file of conf/ that is composed.
        overrides: as on the command line.

    Raises:
        UserError: as on the command line.
    """
    return compose_line(read_command_line(overrides, command), command)


def compose_line(line: CommandLine, command: str) -> Config:
    """Returns the checked config of a command line that was read, without running anything.

    Raises:
        UserError: as on the command line.
    """
    import hydra

    register_schema()
    searched = ",".join(f'"file://{folder.absolute()}"' for folder in line.folders if folder != CONF)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            composed = hydra.compose(command, overrides=[*line.overrides, f"hydra.searchpath=[{searched}]"])
        except Exception as error:
            raise UserError(hydra_message(error)) from error
    return typed(composed, command, line.folders, line.given)


def register_schema() -> None:
    """Adds every key with its default to the composition, as plain values: types are checked by `typed`, point by point."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=schema.defaults())


def typed(composed: Any, command: str, folders: tuple[Path, ...] = (CONF,), given: frozenset[str] = frozenset()) -> Config:
    """Returns the checked config of a composition.

    Args:
        composed: what Hydra made.
        command: `train`, `refine` or `evaluate`.
        folders: with the YAML of the groups: conf/, and the folder of --config-dir.
        given: the keys and groups that the command line names.

    Raises:
        UserError: an interpolation that does not resolve, or a value or a combination of values that is not allowed.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {hydra_message(error)}") from error
    if isinstance(plain, dict):
        plain.pop("hydra", None)
    if isinstance(plain, dict) and isinstance(plain.get("evaluation"), dict):
        drop_overridden(plain["evaluation"], given)
    parts, also = mixture.take_parts(plain, folders), judges.take_judges(plain, folders)
    cfg = schema.build(plain, members())
    cfg.data.mix, cfg.judge.also = parts, also
    checks.prefer_local(cfg)
    mixture.tell_apart(cfg.data)
    checks.check(cfg, command)
    return cfg


def place_of(composed: Any, line: CommandLine) -> Place:
    """Returns where the run goes; hydra.run.dir= and hydra.sweep.dir= may hold interpolations such as ${seed}."""
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    if line.directory is None:
        return Place()
    with open_dict(composed):
        composed["place"] = line.directory
    try:
        path = local_path(str(composed["place"]))
        check_directory_name(path)
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.{'sweep' if line.sweep else 'run'}.dir={line.directory}: {hydra_message(error)}") from error
    return Place(root=path) if line.sweep else Place(exact=path)


def is_hydra_error(error: Exception) -> bool:
    """Whether an exception that no point raised is Hydra's way to say that something is wrong: on the command line, in YAML."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return isinstance(error, (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError))


def hydra_message(error: BaseException) -> str:
    """Returns the lines of Hydra's or OmegaConf's message that a user can use, its cause included."""
    if isinstance(error, RecursionError):
        return "the config is nested too deeply, or in itself."
    lines = [line.strip() for line in str(error).splitlines()]
    if error.__cause__ is not None:
        lines += [line.strip() for line in str(error.__cause__).splitlines()]
    noise = ("See https://hydra.cc", "full_key:", "object_type=", "Config search path:", "provider=")
    return " ".join(dict.fromkeys(line for line in lines if line and not line.startswith(noise)))
