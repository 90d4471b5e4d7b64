"""Data sets on the Hugging Face hub: from the local cache where the commit is pinned, else downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgr_lightning.errors import UserError
from dgr_lightning.models.hub import gist, hub_reachable, named, unreachable


def dataset_available(hub_id: str, revision: str | None) -> bool:
    """Whether a data set is prepared in the local cache or the hub is reachable."""
    return bool(_prepared(hub_id, revision, None)) or hub_reachable()


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
    prepared = _prepared(hub_id, revision, subset)
    if prepared and (revision is not None or not hub_reachable()):
        return _read_prepared(prepared[-1], hub_id, split, path_key)
    if not hub_reachable():
        raise UserError(f"{unreachable()}, and data {hub_id} is not in the local cache. Set {path_key}=<local file>.")
    import datasets

    try:
        return datasets.load_dataset(hub_id, subset, revision=revision, split=split).to_list()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        message = f"{named(hub_id, revision)}, split {split}: {gist(error)} Or set {path_key}=<local file>."
        raise UserError(message) from error


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
