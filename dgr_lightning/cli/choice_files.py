"""The YAML of a choice, for lists whose entries name one: the parts of `data.mix`, the judges of `judge.also`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dgr_lightning.cli.overrides import choices
from dgr_lightning.errors import UserError


def read_choice(
    group: str, choice: str, place: str, folders: tuple[Path, ...], what: str, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns the keys of a choice of a group, its interpolations resolved.

    Args:
        group: such as data.
        choice: name of its file.
        place: what messages begin with.
        folders: where choices are looked up: conf/, and the folder of --config-dir.
        what: what a choice is, in words, such as source.
        without: choices that an entry cannot name.

    Raises:
        UserError: there is no such choice, or it cannot be read by itself.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    files = [file for folder in folders if (file := folder / group / f"{choice}.yaml").is_file()]
    known = [name for name in choices(group, folders) if name not in without]
    if choice not in known:
        raise UserError(f"{place}: no {group} {choice!r}.{near(choice, known)} Choices: {', '.join(known)}.")
    try:
        base = OmegaConf.to_container(OmegaConf.load(files[0]), resolve=True) or {}
    except (OmegaConfBaseException, YAMLError) as error:
        cause = str(error).partition("\n")[0]
        raise UserError(f"{place}: {files[0]} cannot be read by itself ({cause}).") from error
    if not isinstance(base, dict) or "defaults" in base:
        raise UserError(f"{place}: {files[0]} is no plain {what}: an entry takes one without a defaults list.")
    return {str(name): value for name, value in base.items()}


def near(name: str, known: Iterable[str]) -> str:
    """Returns the sentence that asks whether a similar name was meant; nothing where none is."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]}?" if found else ""
