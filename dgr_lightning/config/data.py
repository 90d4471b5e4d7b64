"""Keys of `data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from dgr_lightning.config.setting import NEVER, setting
from dgr_lightning.example import LABELS


@dataclass
class FieldsConfig:
    """Which column of a row holds what; a column named here must be in the rows.

    Null takes the column of the key's own name where the rows have it (`id` does not: null is the row's index): `prompt` with
    `response` (think marks inside), else with `trace` and `answer`, and `label` if there is one. Naming `response` and any of
    `trace`, `answer`, `constant_trace`, `answer_after` exclude each other.
    """

    id: Optional[str] = setting(None, "column with the row's id; without one, the row's index")
    prompt: Optional[str] = setting(None, "column with the user's prompt")
    response: Optional[str] = setting(None, "column with trace and answer, told apart by think marks")
    trace: Optional[str] = setting(None, "column with the trace alone; an empty one is valid")
    answer: Optional[str] = setting(None, "column with the answer alone")
    label: Optional[str] = setting(None, "column that says harmful, safe_completion or benign")
    constant_trace: Optional[str] = setting(None, "one trace for every row, where the set has none")
    answer_after: Optional[str] = setting(None, "keep of the answer column only what follows this text")
    labels: dict[str, str] = setting(
        {}, "values of the label column that mean harmful, safe_completion or benign, such as {vanilla_benign: benign}"
    )
    default_label: str = setting("harmful", "label of a row that has none", choices=LABELS)


@dataclass
class BenignConfig:
    """Where benign rows come from; null: the rows of the set itself that are labelled benign.

    With the `hub_id` of the set itself it is other rows of the same set, chosen by `keep`; `data.path` then stands for both.
    """

    hub_id: Optional[str] = setting(None, "dataset id on the hub", hashed=NEVER)
    revision: Optional[str] = setting(None, "pinned commit of hub_id", hashed=NEVER)
    split: str = setting("train", "split of the hub dataset", hashed=NEVER)
    path: Optional[str] = setting(None, "local file (jsonl, json, csv, parquet)", private=True, hashed=NEVER)
    keep: dict[str, Optional[str]] = setting(
        {}, "use only rows whose column has this value, such as {label: vanilla_benign}", added=True
    )
    fields: FieldsConfig = field(default_factory=FieldsConfig)


@dataclass
class DataConfig:
    """The source set: somebody else's (prompt, trace, answer) rows."""

    name: str = setting("", "short name; becomes the source and the id prefix of every example")
    hub_id: Optional[str] = setting(None, "dataset id on the hub", hashed=NEVER)
    revision: Optional[str] = setting(None, "pinned commit of hub_id", hashed=NEVER)
    split: str = setting("train", "split of the hub dataset", hashed=NEVER)
    path: Optional[str] = setting(
        None, "local copy (jsonl, json, csv, parquet) to use instead of hub_id", private=True, hashed=NEVER
    )
    recipe: Optional[str] = setting(
        None, "name of a set that the project writes itself", choices=("micro-directrefusal", "micro-r1act"), hashed=NEVER
    )
    language: Optional[str] = setting(
        None, "language of its prompts; null goes with any model", choices=("natural", "micro"), hashed=NEVER
    )
    keep: dict[str, Optional[str]] = setting(
        {}, "use only rows whose column has this value, such as {label: vanilla_harmful}; null: any value"
    )
    first: Optional[int] = setting(None, "use only the first so many rows (after keep)", low=1)
    label_list: Optional[str] = setting(
        None, "list of labels by row id that comes with the package, such as star1-1; null: the rows' own labels", hashed=NEVER
    )
    limit: Optional[int] = setting(None, "final number of examples, benign ones included; null: all", low=1)
    benign_ratio: float = setting(0.0, "share of benign examples in the final set (0.25 = one in four)", low=0.0, high=0.95)
    drop_overlap: bool = setting(
        False, "leave out rows whose prompt is one of the evaluation's or the probes'; off: they are counted", added=True
    )
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    benign: BenignConfig = field(default_factory=BenignConfig)
