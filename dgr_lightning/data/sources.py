"""Loads a run's source set: reads its rows, parses them into examples and draws the subset to train on.

Rows come from a local file, from the hub or from the miniature's own sets; `data/row_parsing.py` parses them. The subset is
drawn by hash, so that the draw for a larger `data.limit` contains the draw for a smaller one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.markup import escape

from dgr_lightning.config import BenignConfig, DataConfig, FieldsConfig
from dgr_lightning.console import say
from dgr_lightning.data.file_readers import Row, columns, read_rows, rows_place
from dgr_lightning.data.hub import dataset_rows
from dgr_lightning.data.label_lists import label_list_file, read_labels
from dgr_lightning.data.row_parsing import REFINED_COLUMNS, check_column, format_counts, parse_rows
from dgr_lightning.errors import UserError
from dgr_lightning.example import BENIGN, HARMFUL, LABELS, Example
from dgr_lightning.hashes import content_hash, file_hash, file_hashes, sorted_by_hash


@dataclass(frozen=True)
class Sources:
    """The examples of a run in source order, and the number of rejected rows by reason."""

    examples: list[Example]
    rejected: dict[str, int] = field(default_factory=dict)


def load_examples(data: DataConfig, seed: int, is_measured: Callable[[str], bool] | None = None) -> Sources:
    """Reads the source set and draws the run's examples from it.

    Args:
        data: where the rows are, what their columns mean, and how many examples to draw. `limit` is the final number,
            benign ones included; `benign_ratio` is their share of it, where 0 leaves out rows labelled benign. A limit
            larger than the set takes all of it and prints a warning. A refined set, such as a run's own, is taken with its
            ids, sources and benign rows as it is.
        seed: the run's seed. Examples of each label are ranked by a hash of seed and id, so changing the limit or adding
            rows does not reorder the rest.
        is_measured: whether the model is measured on a prompt; such rows are rejected. None: no row is.

    Raises:
        UserError: the set cannot be read, every row is rejected, a mapped column is missing, or there are too few benign rows.
    """
    name = data.name or "data"
    rows = _chosen_rows(data, "data")[: data.first]
    refined = _is_refined(data, [row for _, row in rows])
    labels = None if data.label_list is None else read_labels(data.label_list)
    examples, rejected = parse_rows(
        rows,
        data.fields,
        name,
        key="data.fields",
        default_label=data.fields.default_label,
        labels=labels,
        refined=refined,
        is_measured=is_measured,
    )
    if refined and data.benign_ratio == 0:
        return _whole_refined_set(data, seed, examples, rejected)
    safety = [example for example in examples if example.label != BENIGN]
    benign = [example for example in examples if example.label == BENIGN]
    if data.benign_ratio == 0 and benign:
        say(f"{escape(name)}: {len(benign)} rows labelled benign are left out (data.benign_ratio=0)")
    pool = examples
    if data.benign_ratio > 0 and _names_source(data.benign):
        benign, more_rejected = _benign_examples(_benign_source(data), f"{name}-benign", is_measured)
        pool, rejected = examples + benign, rejected + more_rejected
    num_safety, num_benign = _counts_to_draw(data, len(safety), len(benign))
    drawn_ids = _draw_ids(safety, num_safety, seed) | _draw_ids(benign, num_benign, seed)
    drawn = [example for example in pool if example.id in drawn_ids]
    say(
        f"{escape(name)}: {len(rows)} rows, {len(drawn)} examples drawn ({_label_counts(drawn)})"
        + (f", {rejected.total()} rejected: {format_counts(rejected)}" if rejected else "")
    )
    return Sources(drawn, dict(sorted(rejected.items())))


def data_hash(data: DataConfig) -> str:
    """Returns the content hash of the source set, independent of its path.

    Files are hashed by their bytes, the miniature's sets by name and version, hub sets by id and commit, or by their rows
    where no commit is pinned; a list of labels by its bytes.

    Raises:
        UserError: a path does not exist, or the rows of an unpinned hub set cannot be loaded.
    """
    if data.path is None and data.recipe is not None:
        from dgr_lightning.micro.sets import VERSION

        identity: list[Any] = [data.recipe, VERSION]
    else:
        identity = _source_identity(data, "data.path")
    if data.benign_ratio > 0 and _names_source(data.benign):
        identity.append(_source_identity(_benign_source(data), "data.benign.path"))
    if data.label_list is not None:
        identity.append(["labels", file_hash(label_list_file(data.label_list))])
    return content_hash(identity)


def _source_identity(source: DataConfig | BenignConfig, key: str) -> list[Any]:
    if source.path is None:
        if source.revision is not None:
            return [source.hub_id, source.revision, source.split]
        digest = sha256()
        for row in _source_rows(source, key):
            digest.update(repr(row).encode())
        return [digest.hexdigest()]
    return file_hashes(rows_place(_existing_path(source.path, key)))


# --- Rows -----------------------------------------------------------------------------------------------------------------


def _names_source(source: BenignConfig) -> bool:
    return source.path is not None or source.hub_id is not None


def _benign_source(data: DataConfig) -> BenignConfig:
    """Returns where benign rows come from: of the set itself, a local copy of the set serves for both."""
    same_set = data.benign.hub_id is not None and data.benign.hub_id == data.hub_id
    return replace(data.benign, path=data.path) if same_set and data.benign.path is None else data.benign


def _existing_path(path: str, key: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise UserError(f"{key}={path}: no such file (looked in {Path.cwd()}).")
    return found


def _source_rows(source: DataConfig | BenignConfig, key: str) -> list[Row]:
    """Returns the rows of the local file if `path` is set, else of the hub data set."""
    if source.path is not None:
        return read_rows(_existing_path(source.path, key))
    if source.hub_id is None:
        raise UserError(f"{key} is not set. Name a local file (jsonl, json, csv, parquet), or choose another data=….")
    return dataset_rows(source.hub_id, source.revision, source.split, path_key=key)


def _chosen_rows(source: DataConfig | BenignConfig, key: str) -> list[tuple[int, Row]]:
    """Returns the rows that `keep` selects, with their indices in the source."""
    if isinstance(source, DataConfig) and source.path is None and source.recipe is not None:
        from dgr_lightning.micro.sets import source_rows

        rows: list[Row] = list(source_rows(source.recipe))
    else:
        rows = _source_rows(source, f"{key}.path")
    numbered = list(enumerate(rows))
    for column, value in source.keep.items():
        if value is None:
            continue
        check_column(column, f"{key}.keep.{column}", columns(rows), f"Set {key}.keep.{column}=null to drop the condition")
        kept = [(index, row) for index, row in numbered if str(row.get(column)) == value]
        if not kept:
            counts = Counter(str(row.get(column))[:40] for _, row in numbered)
            values = ", ".join(f"{found} ({count})" for found, count in counts.most_common(8))
            raise UserError(f"{key}.keep.{column}={value}: no row has this value. Found: {values}.")
        numbered = kept
    return numbered


def _is_refined(data: DataConfig, rows: list[Row]) -> bool:
    """Whether the rows are what a run trained on, and their columns are not said to be anything else."""
    return data.fields == FieldsConfig() and bool(rows) and set(rows[0]) == REFINED_COLUMNS


def _whole_refined_set(data: DataConfig, seed: int, examples: list[Example], rejected: Counter[str]) -> Sources:
    """Returns a refined set with everything in it, or `data.limit` examples of it, drawn whatever their label."""
    drawn_ids = _draw_ids(examples, len(examples) if data.limit is None else data.limit, seed)
    drawn = [example for example in examples if example.id in drawn_ids]
    say(f"{escape(data.name or 'data')}: a refined set, {len(drawn)} of its {len(examples)} examples ({_label_counts(drawn)})")
    return Sources(drawn, dict(sorted(rejected.items())))


# --- The draw -------------------------------------------------------------------------------------------------------------


def _benign_examples(
    source: BenignConfig, name: str, is_measured: Callable[[str], bool] | None
) -> tuple[list[Example], Counter[str]]:
    """Returns the benign examples of `data.benign`, where a row without a label counts as benign."""
    rows = _chosen_rows(source, "data.benign")
    examples, rejected = parse_rows(
        rows, source.fields, name, key="data.benign.fields", default_label=BENIGN, is_measured=is_measured
    )
    return [example for example in examples if example.label == BENIGN], rejected


def _label_counts(examples: list[Example]) -> str:
    counts = Counter(example.label for example in examples)
    always = (HARMFUL, BENIGN)
    return ", ".join(f"{counts[label]} {label}" for label in LABELS if counts[label] or label in always)


def _counts_to_draw(data: DataConfig, num_safety: int, num_benign: int) -> tuple[int, int]:
    """Returns how many of the available examples to draw: of the safety set (harmful, safe_completion), and benign ones.

    Raises:
        UserError: there are no harmful examples, or too few benign ones for `data.benign_ratio`.
    """
    name, ratio = data.name or "data", data.benign_ratio
    if not num_safety:
        raise UserError(
            f"{name}: all {num_benign} accepted rows are labelled benign, and a safety set needs harmful ones. "
            "Check data.fields.label, data.fields.labels and data.fields.default_label."
        )
    # The largest n that the harmful examples allow, where round(n * ratio) are benign; rounding shifts it by one or two.
    most = next(n for n in range(int(num_safety / (1 - ratio)) + 2, 0, -1) if n - _num_benign(n, ratio) <= num_safety)
    total = most if data.limit is None else min(data.limit, most)
    needed = _num_benign(total, ratio)
    if needed > num_benign:
        smaller = next(n for n in range(total, -1, -1) if _num_benign(n, ratio) <= num_benign)
        lower = f"data.limit={smaller}, a smaller data.benign_ratio" if num_benign else "data.benign_ratio=0"
        raise UserError(
            f"data.benign_ratio={ratio:g} of {total} examples needs {needed} benign ones, but {name} has {num_benign} "
            f"and {num_safety} others. Set {lower}, or data.benign.path=<file with more benign rows>."
        )
    if data.limit is not None and total < data.limit:
        say(f"[yellow]{escape(name)}: data.limit={data.limit}, but the set yields only {total} examples; using all of them[/]")
    return total - needed, needed


def _num_benign(total: int, ratio: float) -> int:
    return round(total * ratio)


def _draw_ids(examples: list[Example], count: int, seed: int) -> set[str]:
    """Ranks examples by a hash of seed and id and returns the ids of the first `count`."""
    ranked = sorted_by_hash(examples, lambda example: f"{seed} {example.id}")
    return {example.id for example in ranked[:count]}
