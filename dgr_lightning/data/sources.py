"""Safety sets → examples: one prompt, exactly one trace, exactly one answer a row, or the row is rejected with a reason.

Rows come from a local file, from the hub or from the project's own miniature; `triples` makes examples of them. The subset is
drawn by hash, so that the draw under a larger `data.limit` holds the one under a smaller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.markup import escape

from dgr_lightning.config import BenignConfig, DataConfig
from dgr_lightning.console import say
from dgr_lightning.data.hub import dataset_rows
from dgr_lightning.data.readers import Row, columns, read_rows
from dgr_lightning.data.rows import check_column, count_reasons, parse_rows
from dgr_lightning.errors import UserError
from dgr_lightning.example import BENIGN, HARMFUL, Example
from dgr_lightning.hashes import content_hash, file_hashes, sorted_by_hash


@dataclass(frozen=True)
class Sources:
    """The examples of a run, in the order of their source, and how many rows of it were rejected for which reason."""

    examples: list[Example]
    rejected: dict[str, int] = field(default_factory=dict)


def load_examples(data: DataConfig, seed: int) -> Sources:
    """Reads the source set and draws the run's examples from it.

    Args:
        data: where the rows are, what their columns mean, how many to draw. `limit` is the final number, benign ones
            included; `benign_ratio` their share of it, 0 leaving rows labelled benign out. A limit above what the set holds
            takes all of it, and says so.
        seed: the run's seed. A kind's examples are ranked by a hash of seed and id: another limit or another row in the file
            changes nothing about the order of the rest.

    Raises:
        UserError: the set cannot be read, has no good row, lacks a mapped column, or cannot meet the benign share.
    """
    name = data.name or "data"
    rows = _chosen_rows(data)
    examples, rejected = parse_rows(rows, data.fields, name, key="data.fields", default_label=data.fields.default_label)
    harmful = [example for example in examples if example.label == HARMFUL]
    benign = [example for example in examples if example.label == BENIGN]
    if data.benign_ratio == 0 and benign:
        say(f"{escape(name)}: {len(benign)} rows labelled benign are left out, data.benign_ratio=0")
    if data.benign_ratio > 0 and _names_source(data.benign):
        benign, more = _benign_examples(data.benign, f"{name}-benign")
        rejected += more
    num_harmful, num_benign = _shares(data, len(harmful), len(benign))
    chosen = _draw(harmful, num_harmful, seed) | _draw(benign, num_benign, seed)
    pool = examples + [example for example in benign if example.source != name]
    drawn = [example for example in pool if example.id in chosen]
    say(
        f"{escape(name)}: {len(rows)} rows, {len(drawn)} examples drawn ({num_harmful} harmful, {num_benign} benign)"
        + (f", {rejected.total()} rejected: {count_reasons(rejected)}" if rejected else "")
    )
    return Sources(drawn, dict(sorted(rejected.items())))


def data_hash(data: DataConfig) -> str:
    """Returns a hash of what the source set holds, never of where it lies.

    Files count by their bytes, recipes by name and version, hub sets by id and commit, and by their rows where no commit is
    pinned.

    Raises:
        UserError: a path is not there, or the rows of an unpinned hub set cannot be had.
    """
    if data.path is None and data.recipe is not None:
        from dgr_lightning.micro.sets import VERSION

        identity: list[Any] = [data.recipe, VERSION]
    else:
        identity = _source_identity(data, "data.path")
    if data.benign_ratio > 0 and _names_source(data.benign):
        identity.append(_source_identity(data.benign, "data.benign.path"))
    return content_hash(identity)


def _source_identity(source: DataConfig | BenignConfig, key: str) -> list[Any]:
    if source.path is None:
        if source.revision is not None:
            return [source.hub_id, source.revision, source.split]
        digest = sha256()
        for row in _source_rows(source, key):
            digest.update(repr(row).encode())
        return [digest.hexdigest()]
    path = Path(source.path).expanduser()
    if not path.exists():
        raise UserError(f"{key}={source.path}: there is no such file.")
    return file_hashes(path)


# --- Rows -----------------------------------------------------------------------------------------------------------------


def _names_source(source: BenignConfig) -> bool:
    return source.path is not None or source.hub_id is not None


def _source_rows(source: DataConfig | BenignConfig, key: str) -> list[Row]:
    """Returns the rows of a local file, else of the hub."""
    if source.path is not None:
        path = Path(source.path).expanduser()
        if not path.exists():
            raise UserError(f"{key}={source.path}: there is no such file.")
        return read_rows(path)
    if source.hub_id is None:
        raise UserError(f"{key} is not set: name a local file (jsonl, json, csv, parquet), or choose another data=….")
    return dataset_rows(source.hub_id, source.revision, source.split, path_key=key)


def _chosen_rows(data: DataConfig) -> list[tuple[int, Row]]:
    """Returns the rows with their indices in the source, after `keep` and `first`."""
    if data.path is None and data.recipe is not None:
        from dgr_lightning.micro.sets import source_rows

        rows: list[Row] = list(source_rows(data.recipe))
    else:
        rows = _source_rows(data, "data.path")
    numbered = list(enumerate(rows))
    for column, value in data.keep.items():
        if value is None:
            continue
        check_column(column, f"data.keep.{column}", columns(rows), f"data.keep.{column}=null drops the condition")
        kept = [(index, row) for index, row in numbered if str(row.get(column)) == value]
        if not kept:
            values = ", ".join(f"{found} ({count})" for found, count in _values(numbered, column).most_common(8))
            raise UserError(f"data.keep.{column}={value}: no row has this value. Values of the column: {values}.")
        numbered = kept
    return numbered[: data.first]


def _values(rows: Sequence[tuple[int, Row]], column: str) -> Counter[str]:
    return Counter(str(row.get(column))[:40] for _, row in rows)


# --- The draw -------------------------------------------------------------------------------------------------------------


def _benign_examples(source: BenignConfig, name: str) -> tuple[list[Example], Counter[str]]:
    """Returns the benign examples of `data.benign`; a row there without a label is benign."""
    rows = list(enumerate(_source_rows(source, "data.benign.path")))
    examples, rejected = parse_rows(rows, source.fields, name, key="data.benign.fields", default_label=BENIGN)
    return [example for example in examples if example.label == BENIGN], rejected


def _shares(data: DataConfig, num_harmful: int, num_benign: int) -> tuple[int, int]:
    """Returns how many harmful and benign examples to draw.

    Raises:
        UserError: there are no harmful ones, or too few benign ones for the share asked for.
    """
    name, ratio = data.name or "data", data.benign_ratio
    if not num_harmful:
        raise UserError(
            f"{name}: all {num_benign} good rows are labelled benign, and a safety set needs harmful ones. "
            "See data.fields.label, data.fields.labels and data.fields.default_label."
        )
    # As much as the harmful ones allow: n examples of which round(n * ratio) are benign. The rounding moves it by one or two.
    most = next(n for n in range(int(num_harmful / (1 - ratio)) + 2, 0, -1) if n - _num_benign(n, ratio) <= num_harmful)
    total = most if data.limit is None else min(data.limit, most)
    needed = _num_benign(total, ratio)
    if needed > num_benign:
        smaller = next(n for n in range(total, -1, -1) if _num_benign(n, ratio) <= num_benign)
        lower = f"data.limit={smaller}, a smaller data.benign_ratio" if num_benign else "data.benign_ratio=0"
        raise UserError(
            f"data.benign_ratio={ratio:g} of {total} examples asks for {needed} benign ones, and {name} has {num_benign} "
            f"(and {num_harmful} harmful). Set {lower}, or name a file with more benign rows as data.benign.path."
        )
    if data.limit is not None and total < data.limit:
        say(f"[yellow]{escape(name)}: data.limit={data.limit}, but the set is good for {total}: all of it is used[/]")
    return total - needed, needed


def _num_benign(total: int, ratio: float) -> int:
    return round(total * ratio)


def _draw(examples: list[Example], count: int, seed: int) -> set[str]:
    """Returns the ids of the first `count` examples in the seed's order."""
    ranked = sorted_by_hash(examples, lambda example: f"{seed} {example.id}")
    return {example.id for example in ranked[:count]}
