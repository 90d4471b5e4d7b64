"""Data sets on the Hugging Face hub: from the local cache where the commit is pinned, else downloaded.

Of the processes of a run, which may be many, one asks the hub: the driver follows branches, the first that needs a data set
loads it, and the others wait and read what it has left in the local cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from dgr_lightning.cache import cache_dir
from dgr_lightning.errors import UserError
from dgr_lightning.file_locks import take_lock
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.hub import REACH_SECONDS, SETTLED, gist, hub_reachable, named, unreachable

READY, UNREACHABLE, GATED, ABSENT = "ready", "unreachable", "gated", "absent"
"""Access to a data set: it can be read; no hub answers; its terms are not accepted by this account; the hub has none."""


def dataset_access(hub_id: str, revision: str | None, subsets: Sequence[str | None] = (None,)) -> str:
    """Returns whether a data set can be read, and if not, why: `READY`, `UNREACHABLE`, `GATED` or `ABSENT`.

    One small request asks the hub, once a process; what is prepared in the local cache is not asked for. An answer that is none
    of these counts as `READY`: the download says better what it is.
    """
    if all(_prepared(hub_id, revision, subset) for subset in subsets):
        return READY
    return _answer(hub_id) if hub_reachable() else UNREACHABLE


@cache
def _answer(hub_id: str) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    address = f"{constants.ENDPOINT}/api/datasets/{hub_id}/auth-check"
    try:
        hf_raise_for_status(get_session().get(address, headers=build_hf_headers(), timeout=REACH_SECONDS))
    except GatedRepoError:  # before the other, of which it is a kind
        return GATED
    except RepositoryNotFoundError:
        return ABSENT
    except Exception:  # a time-out, a mirror without this service: the download will tell
        return READY
    return READY


def dataset_rows(
    hub_id: str, revision: str | None, split: str, *, subset: str | None = None, path_key: str = "data.path"
) -> list[dict[str, Any]]:
    """Returns the rows of a split; a pinned commit that was loaded before is read from the local cache.

    Args:
        hub_id: owner/name.
        revision: pinned commit; None follows the default branch.
        split: such as `train`.
        subset: configuration of the data set, such as GSM8K's `main`.
        path_key: config key that takes a local copy instead, for messages.

    Raises:
        UserError: the data set, the commit or the split does not exist or cannot be reached.
    """
    if (folder := _to_read(hub_id, revision, subset)) is None:
        with _alone(hub_id):
            folder = _to_read(hub_id, revision, subset)  # again: another process may have loaded it meanwhile
            if folder is None:
                return _load(hub_id, revision, split, subset, path_key)
    return _read_prepared(folder, hub_id, split, path_key)


def _to_read(hub_id: str, revision: str | None, subset: str | None) -> Path | None:
    """Returns the folder in the local cache that is read without asking the hub; None: it has to be asked."""
    prepared = _prepared(hub_id, revision, subset)
    settled = revision is not None or SETTLED in os.environ
    return prepared[-1] if prepared and (settled or not hub_reachable()) else None


def _load(hub_id: str, revision: str | None, split: str, subset: str | None, path_key: str) -> list[dict[str, Any]]:
    if not hub_reachable():
        raise UserError(f"{unreachable()}, and data {hub_id} is not in the local cache. Set {path_key}=<local file>.")
    import datasets

    try:
        loaded = datasets.load_dataset(hub_id, subset, revision=revision, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        message = f"{named(hub_id, revision)}, split {split}: {gist(error)} Or set {path_key}=<local file>."
        raise UserError(message) from error
    # A branch may have gone back to a commit that was loaded long ago: the processes of a stage take the latest folder.
    for folder in {Path(file["filename"]).parent for file in loaded.cache_files}:
        with suppress(OSError):
            os.utime(folder)
    return loaded.to_list()


@contextmanager
def _alone(hub_id: str) -> Iterator[None]:
    """Waits until no other process that shares the cache is loading this data set; a cache without locks lets all load."""
    path = cache_dir() / "loading" / f"{content_hash(hub_id)}.lock"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError:
        yield
        return
    with file:
        with suppress(UserError):
            take_lock(file, wait=True)
        yield


def _prepared(hub_id: str, revision: str | None, subset: str | None) -> list[Path]:
    """Returns the folders in which `datasets` keeps a prepared data set, the newest last.

    The layout is <owner>___<snake_case_name>/<subset>/<version>/<commit>. Folders are looked up by commit here because
    `load_dataset`, when offline, takes the newest folder whatever its commit.
    """
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, slash, name = hub_id.rpartition("/")
    root = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}{'___' if slash else ''}{camelcase_to_snakecase(name)}"
    folders = root.glob(f"{subset or '*'}/*/{revision or '*'}")
    return sorted(
        (folder for folder in folders if (folder / "dataset_info.json").exists()), key=lambda folder: folder.stat().st_mtime
    )


def _read_prepared(folder: Path, hub_id: str, split: str, path_key: str) -> list[dict[str, Any]]:
    import datasets

    shards = sorted(folder.glob(f"*-{split}.arrow")) or sorted(folder.glob(f"*-{split}-*-of-*.arrow"))
    if not shards:
        raise UserError(f"{hub_id}: no split {split!r} in the local cache ({folder}). Set {path_key}=<local file>.")
    return [row for shard in shards for row in datasets.Dataset.from_file(str(shard)).to_list()]
