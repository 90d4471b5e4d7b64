"""Checks of paths that a config names: whether anything is there, and whether it is of the kind that the key takes."""

from __future__ import annotations

from pathlib import Path

from dgr_lightning.cli.hints import refuse_run
from dgr_lightning.errors import UserError
from dgr_lightning.files import check_plain, exists, local_path


def check_folder_path(key: str, path: str, *, weights: bool = True) -> None:
    """Raises a UserError where a key names no model folder, or one without weights where it has to have them."""
    from dgr_lightning.models.folder import check_folder

    refuse_run(local_path(path), key)
    check_folder(local_path(path), f"{key}={path}", weights=weights)


def check_file(key: str, path: str | None, *, folder: bool = False) -> None:
    """Raises a UserError where a key names no file; `folder`: it takes a folder as well."""
    if path is None:
        return
    there = local_path(path)
    if not exists(there):
        raise UserError(f"{key}={path}: there is no such file (looked in {Path.cwd()}).")
    check_plain(there, f"{key}={path}")
    if there.is_dir() and not folder:
        raise UserError(f"{key}={path}: a folder, where a text file is expected.")
