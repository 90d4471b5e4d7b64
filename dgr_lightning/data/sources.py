"""Loads a run's source set: reads its rows, parses them into examples and draws the subset to train on.

`data/source_rows.py` reads the rows, `data/row_parsing.py` parses them. The subset is drawn by hash, so that the draw for a
larger `data.limit` contains the draw for a smaller one. With `data.mix` rows come from several sources: `data/mixture.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rich.markup import escape

from dgr_lightning.config import BenignConfig, DataConfig
from dgr_lightning.console import say
from dgr_lightning.data.label_lists import label_list_file, read_labels
from dgr_lightning.data.mix_parts import part_identity
from dgr_lightning.data.mixture import load_parts
from dgr_lightning.data.row_parsing import format_counts, parse_rows
from dgr_lightning.data.source_rows import chosen_rows, is_refined, own_identity, source_identity
from dgr_lightning.errors import UserError
from dgr_lightning.example import BENIGN, HARMFUL, LABELS, Example
from dgr_lightning.hashes import content_hash, file_hash, sorted_by_hash


@dataclass(frozen=True)
class Sources:
    """The examples of a run.

    Attributes:
        examples: in source order; those of a mixture in the order of its parts.
        rejected: reason → number of rejected rows.
        part_sizes: of a mixture, how many examples each part gave; empty otherwise.
    """

    examples: list[Example]
    rejected: dict[str, int] = field(default_factory=dict)
    part_sizes: tuple[int, ...] = ()


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
        UserError: the set cannot be read, every row is rejected, a mapped column is missing, or there are too few benign rows;
            a part of a mixture has too few rows.
    """
    if data.mix:
        parts, rejected = load_parts(data, seed, is_measured)
        examples = [example for part in parts for example in part]
        return Sources(examples, dict(sorted(rejected.items())), tuple(map(len, parts)))
    name = data.name or "data"
    rows = chosen_rows(data, "data")[: data.first]
    refined = is_refined(data, [row for _, row in rows])
    labels = None if data.label_list is None else read_labels(data.label_list)
    numbered, rejected = parse_rows(
        rows,
        data.fields,
        name,
        key="data.fields",
        default_label=data.fields.default_label,
        labels=labels,
        refined=refined,
        is_measured=is_measured,
    )
    examples = list(numbered.values())
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
        f"{escape(name)}: {len(rows)} rows, {len(drawn)} examples drawn ({label_counts(drawn)})"
        + (f", {rejected.total()} rejected: {format_counts(rejected)}" if rejected else "")
    )
    return Sources(drawn, dict(sorted(rejected.items())))


def data_hash(data: DataConfig) -> str:
    """Returns the content hash of the source set, independent of its path.

    Files are hashed by their bytes, the miniature's sets by name and version, hub sets by id and commit, or by their rows
    where no commit is pinned; a list of labels by its bytes. Of a mixture every part is hashed, in their order, with its name,
    its kind and share, and which of its rows are used how.

    Raises:
        UserError: a path does not exist, or the rows of an unpinned hub set cannot be loaded.
    """
    if data.mix:
        # Which parts draw from the same rows decides who gets which, and two files may have the same content.
        places = [part.place for part in data.mix]
        shared = [places.index(place) for place in places]
        return content_hash("mix", [part_identity(part, key) for key, part in data.parts], shared)
    identity = own_identity(data, "data")
    if data.benign_ratio > 0 and _names_source(data.benign):
        identity.append(source_identity(_benign_source(data), "data.benign.path"))
    if data.label_list is not None:
        identity.append(["labels", file_hash(label_list_file(data.label_list))])
    return content_hash(identity)


def _whole_refined_set(data: DataConfig, seed: int, examples: list[Example], rejected: Counter[str]) -> Sources:
    """Returns a refined set with everything in it, or `data.limit` examples of it, drawn whatever their label."""
    drawn_ids = _draw_ids(examples, len(examples) if data.limit is None else data.limit, seed)
    drawn = [example for example in examples if example.id in drawn_ids]
    say(f"{escape(data.name or 'data')}: a refined set, {len(drawn)} of its {len(examples)} examples ({label_counts(drawn)})")
    return Sources(drawn, dict(sorted(rejected.items())))


def _names_source(source: BenignConfig) -> bool:
    return source.path is not None or source.hub_id is not None


def _benign_source(data: DataConfig) -> BenignConfig:
    """Returns where benign rows come from: of the set itself, a local copy of the set serves for both."""
    same_set = data.benign.hub_id is not None and data.benign.hub_id == data.hub_id
    return replace(data.benign, path=data.path) if same_set and data.benign.path is None else data.benign


def _benign_examples(
    source: BenignConfig, name: str, is_measured: Callable[[str], bool] | None
) -> tuple[list[Example], Counter[str]]:
    """Returns the benign examples of `data.benign`, where a row without a label counts as benign."""
    rows = chosen_rows(source, "data.benign")
    examples, rejected = parse_rows(
        rows, source.fields, name, key="data.benign.fields", default_label=BENIGN, is_measured=is_measured
    )
    return [example for example in examples.values() if example.label == BENIGN], rejected


# --- The draw -------------------------------------------------------------------------------------------------------------


def label_counts(examples: list[Example]) -> str:
    """Returns how many examples have each label, in words; harmful and benign ones are named even where there are none."""
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
