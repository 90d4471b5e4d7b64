"""What a part of `data.mix` may give: the rows of its source that are of its kind, and what identifies them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from typing import Any

from dgr_lightning.config import MixPart
from dgr_lightning.data.file_readers import columns
from dgr_lightning.data.label_lists import label_list_file, read_labels
from dgr_lightning.data.row_parsing import format_counts, parse_rows
from dgr_lightning.data.source_rows import chosen_rows, is_refined, own_identity
from dgr_lightning.errors import UserError
from dgr_lightning.example import BENIGN, HARMFUL, RETENTION, SAFE_COMPLETION, Example
from dgr_lightning.hashes import file_hash


@dataclass(frozen=True)
class Pool:
    """The examples that a part may give.

    Attributes:
        key: of the part, for messages: `data.mix[0]`.
        name: of its source.
        kind: as what its rows take part.
        share: of the final set.
        place: of the source: parts with the same place read the same rows.
        examples: index of the row in the source → example, in source order.
    """

    key: str
    name: str
    kind: str
    share: float
    place: Hashable
    examples: dict[int, Example]


def read_pool(part: MixPart, key: str, is_measured: Callable[[str], bool] | None) -> tuple[Pool, Counter[str]]:
    """Reads what a part may give: the rows of its source that are of its kind. Also returns the rejected rows by reason.

    `harmful` takes rows labelled harmful or safe_completion; `benign` those labelled benign, or every row of a set that has no
    labels; `retention` every row whatever its label. A refined set is read like any other rows, with new ids.

    Raises:
        UserError: the source cannot be read, or none of its rows is of this kind.
    """
    rows = chosen_rows(part, key)[: part.first]
    fields = part.fields
    if is_refined(part, [row for _, row in rows]):
        fields = replace(fields, id="id")
    label, default = fields.label or "label", fields.default_label
    if part.kind == RETENTION:  # whatever the rows say of themselves
        fields, default = replace(fields, label=None), RETENTION
        rows = [(index, {name: cell for name, cell in row.items() if name != label}) for index, row in rows]
    elif part.kind == BENIGN and part.label_list is None and label not in columns([row for _, row in rows]):
        default = BENIGN
    labels = None if part.label_list is None or part.kind == RETENTION else read_labels(part.label_list)
    found, rejected = parse_rows(
        rows, fields, part.name, key=f"{key}.fields", default_label=default, labels=labels, is_measured=is_measured
    )
    wanted = (HARMFUL, SAFE_COMPLETION) if part.kind == HARMFUL else (part.kind,)
    examples = {index: example for index, example in found.items() if example.label in wanted}
    if not examples:
        there = format_counts(Counter(example.label for example in found.values()))
        raise UserError(
            f"{key} ({part.name}): no row is labelled {' or '.join(wanted)}, and kind={part.kind} takes no others. "
            f"Found: {there}. Write another kind, or map the labels with {key}.fields.labels."
        )
    return Pool(key, part.name, part.kind, part.share, part.place, examples), rejected


def part_identity(part: MixPart, key: str) -> dict[str, Any]:
    """Returns everything that the examples of a part depend on, besides the seed, the limit and the other parts.

    Raises:
        UserError: as `source_identity`, or there is no such list of labels.
    """
    names = ("name", "kind", "share", "keep", "first", "fields")
    labels = None if part.label_list is None else file_hash(label_list_file(part.label_list, f"{key}.label_list"))
    described = {name: value for name, value in asdict(part).items() if name in names}
    return described | {"source": own_identity(part, key), "labels": labels}
