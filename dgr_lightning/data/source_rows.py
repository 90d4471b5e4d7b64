"""The rows of a source as they are: from a local file, the hub or the miniature's own sets; and what identifies them.

What their columns hold is for `data/row_parsing.py`.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

from dgr_lightning.config import BenignConfig, FieldsConfig, SourceConfig
from dgr_lightning.data.file_readers import Row, columns, read_rows, rows_place
from dgr_lightning.data.hub import dataset_rows
from dgr_lightning.data.row_parsing import REFINED_COLUMNS, check_column
from dgr_lightning.errors import UserError
from dgr_lightning.files import check_plain, exists, local_path
from dgr_lightning.hashes import file_hashes


def chosen_rows(source: SourceConfig | BenignConfig, key: str) -> list[tuple[int, Row]]:
    """Returns the rows that `keep` selects, with their indices in the source.

    Args:
        source: where they are.
        key: of the source, for messages: `data`, `data.benign`, `data.mix[0]`.

    Raises:
        UserError: the source cannot be read, or no row has the column or the value that `keep` names.
    """
    if isinstance(source, SourceConfig) and source.path is None and source.recipe is not None:
        from dgr_lightning.micro.sets import source_rows

        rows: list[Row] = list(source_rows(source.recipe))
    else:
        rows = _source_rows(source, f"{key}.path")
    numbered = list(enumerate(rows))
    for column, value in source.keep.items():
        if value is None:
            continue
        check_column(column, f"{key}.keep.{column}", columns(rows), f"Set {key}.keep.{column}=null to drop the condition")
        kept = [(index, row) for index, row in numbered if _shown(row.get(column)) == value]
        if not kept:
            counts = Counter(_shown(row.get(column))[:40] for _, row in numbered)
            values = ", ".join(f"{found} ({count})" for found, count in counts.most_common(8))
            raise UserError(f"{key}.keep.{column}={value}: no row has this value. Found: {values}.")
        numbered = kept
    return numbered


def _shown(cell: Any) -> str:
    """Returns a cell as `keep` compares it; a list or an object may be nested more deeply than it can be written out."""
    try:
        return str(cell)
    except RecursionError:
        return type(cell).__name__


def is_refined(source: SourceConfig, rows: list[Row]) -> bool:
    """Whether the rows are what a run trained on, and their columns are not said to be anything else."""
    return source.fields == FieldsConfig() and bool(rows) and set(rows[0]) == REFINED_COLUMNS


def own_identity(source: SourceConfig, key: str) -> list[Any]:
    """Returns what identifies the content of a source: of one of the miniature's sets its name and their version.

    Raises:
        UserError: as `source_identity`.
    """
    if source.path is None and source.recipe is not None:
        from dgr_lightning.micro.sets import VERSION

        return [source.recipe, VERSION]
    return source_identity(source, f"{key}.path")


def source_identity(source: SourceConfig | BenignConfig, key: str) -> list[Any]:
    """Returns what identifies the content of a file (its bytes), or of a hub set (its commit; its rows where none is pinned).

    Args:
        source: where the rows are.
        key: that takes a path, for messages.

    Raises:
        UserError: the path does not exist, or the rows of an unpinned hub set cannot be loaded.
    """
    if source.path is None:
        if source.revision is not None:
            return [source.hub_id, source.revision, source.split]
        digest = sha256()
        for row in _source_rows(source, key):
            digest.update(repr(row).encode())
        return [digest.hexdigest()]
    return file_hashes(rows_place(_existing_path(source.path, key)))


def _existing_path(path: str, key: str) -> Path:
    found = local_path(path)
    if not exists(found):
        raise UserError(f"{key}={path}: no such file (looked in {Path.cwd()}).")
    check_plain(found, f"{key}={path}")
    return found


def _source_rows(source: SourceConfig | BenignConfig, key: str) -> list[Row]:
    """Returns the rows of the local file if `path` is set, else of the hub data set."""
    if source.path is not None:
        return read_rows(_existing_path(source.path, key))
    if source.hub_id is None:
        raise UserError(f"{key} is not set. Name a local file (jsonl, json, csv, parquet), or choose another data=….")
    return dataset_rows(source.hub_id, source.revision, source.split, path_key=key)
