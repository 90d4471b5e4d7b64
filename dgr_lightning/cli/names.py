"""Checks of the names that users give: files, directories and W&B's pages are called by them.

A name that a file system or W&B refuses would otherwise be found out after the model was located, or after a refinement.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from dgr_lightning.config import Config, Kind
from dgr_lightning.errors import UserError

LONGEST = 255
"""Bytes that the name of a file or directory may take, in every file system that is in use."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASH = len("-0123456789ab")  # what the run hash adds to a directory's name
_WANDB_LONGEST = 128
_NOT_IN_WANDB = re.compile(r"[/\\#?%:]")
_SHOWN = 40


def check_names(cfg: Config, command: str) -> None:
    """Checks every name before anything is called by it.

    Raises:
        UserError: one cannot be part of a file's name, makes one that is too long, or is none that W&B takes.
    """
    names = {
        "name": cfg.name,
        "model.name": cfg.model.name,
        "data.name": cfg.data.name,
        "refine.name": cfg.refine.name,
        "evaluation.name": cfg.evaluation.name,
        **{f"{key}.name": part.name for key, part in cfg.data.parts},
    }
    for key, name in names.items():
        if not name.isprintable() or len(name.encode("utf-8", "replace")) > LONGEST:
            raise UserError(
                f"{key}={shortened(name)}: a name of {len(name)} characters that must be printable, {LONGEST} bytes at most."
            )
    if not _NAME.fullmatch(cfg.name):
        raise UserError(
            f"name={cfg.name}: it becomes a directory; letters, digits, '.', '_' and '-', not first '.', '_' or '-'."
        )
    _check_directory(cfg, command, names)
    if cfg.logger.name == "wandb":
        _check_wandb(cfg)


def _check_directory(cfg: Config, command: str, names: dict[str, str]) -> None:
    from dgr_lightning.pipeline.identity import slug

    directory = len(slug(cfg, cast(Kind, command)).encode()) + _HASH
    if directory > LONGEST:
        parts = ("model.name", "evaluation.name") if command == "evaluate" else ("model.name", "data.name", "refine.name")
        key = max(parts, key=lambda part: len(names[part]))
        raise UserError(
            f"{key}={shortened(names[key])}: {len(names[key])} characters; with it the name of the run's directory has "
            f"{directory} bytes, and a file system takes {LONGEST}. Write a shorter {key}."
        )


def _check_wandb(cfg: Config) -> None:
    for key, name in (("project", cfg.logger.project), ("entity", cfg.logger.entity), ("group", cfg.logger.group)):
        if name is None:
            continue
        bad = key != "group" and _NOT_IN_WANDB.search(name)
        if bad or not name or not name.isprintable() or len(name) > _WANDB_LONGEST:
            raise UserError(
                f"logger.{key}={shortened(name)}: W&B takes 1 to {_WANDB_LONGEST} printable characters"
                + ("." if key == "group" else ", without / \\ # ? % :.")
            )
    if len(cfg.name) + _HASH > _WANDB_LONGEST:
        raise UserError(f"name={shortened(cfg.name)}: with logger=wandb it has {_WANDB_LONGEST - _HASH} characters at most.")


def check_directory_name(place: Path | None) -> None:
    """Checks that a directory which the user named can exist.

    Raises:
        UserError: a part of its path is longer than any file system takes.
    """
    for part in place.parts if place is not None else ():
        if len(part.encode("utf-8", "replace")) > LONGEST:
            raise UserError(f"hydra.run.dir: {shortened(part)} has {len(part.encode())} bytes; a file system takes {LONGEST}.")


def shortened(name: str) -> str:
    """Returns a name for a message: the beginning of a long one, and what cannot be printed as an escape."""
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    return shown if shown.isprintable() else repr(shown)[1:-1]
