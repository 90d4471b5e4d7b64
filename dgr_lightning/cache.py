"""Where everything lies that runs share: miniatures, rewrites, evaluations, traces, hashes of large files."""

from __future__ import annotations

import os
from pathlib import Path

from dgr_lightning.errors import UserError


def cache_dir() -> Path:
    """Returns `$DGR_CACHE`, by default ~/.cache/dgr_lightning; it need not exist yet."""
    return Path(os.environ.get("DGR_CACHE") or "~/.cache/dgr_lightning").expanduser()


def require_cache() -> None:
    """Makes the cache if it is not there. One that can only be read is one: what it holds need not be made.

    Raises:
        UserError: there can be none.
    """
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be used as the cache ({error.strerror}); name another folder with DGR_CACHE=."
        ) from error
