"""The cache folder, which all runs share: miniatures, rewrites, evaluations, traces, hashes of large files."""

from __future__ import annotations

import os
from pathlib import Path

from dgr_lightning.errors import UserError


def cache_dir() -> Path:
    """Returns `$DGR_CACHE`, by default ~/.cache/dgr_lightning; it may not exist yet."""
    return Path(os.environ.get("DGR_CACHE") or "~/.cache/dgr_lightning").expanduser()


def require_cache() -> None:
    """Creates the cache folder unless it exists. A read-only one is accepted, because its entries still save work.

    Raises:
        UserError: the folder cannot be created.
    """
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be used as the cache ({error.strerror}); name another folder with DGR_CACHE=."
        ) from error
