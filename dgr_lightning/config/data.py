"""Keys of `data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from dgr_lightning.config.setting import NEVER, setting
from dgr_lightning.config.shareable import shareable
from dgr_lightning.example import BENIGN, HARMFUL, LABELS, RETENTION
from dgr_lightning.files import local_path


@dataclass
class FieldsConfig:
    """Which column of a row holds what; a column named here must be in the rows.

    Null takes the column of the key's own name where the rows have it (`id` does not: null is the row's index): `prompt` with
    `response` (think marks inside), else with `trace` and `answer`, and `label` if there is one. Naming `response` and any of
    `trace`, `answer`, `constant_trace`, `answer_after` exclude each other.
    """

    id: Optional[str] = setting(None, "column with the row's id; without one, the row's index", private=False)
    prompt: Optional[str] = setting(None, "column with the user's prompt", private=False)
    response: Optional[str] = setting(None, "column with trace and answer, told apart by think marks", private=False)
    trace: Optional[str] = setting(None, "column with the trace alone; an empty one is valid", private=False)
    answer: Optional[str] = setting(None, "column with the answer alone", private=False)
    label: Optional[str] = setting(None, "column that says harmful, safe_completion, benign or retention", private=False)
    constant_trace: Optional[str] = setting(None, "one trace for every row, where the set has none", private=True)
    answer_after: Optional[str] = setting(None, "keep of the answer column only what follows this text", private=True)
    labels: dict[str, str] = setting(
        {},
        "values of the label column that mean harmful, safe_completion, benign or retention, such as {vanilla_benign: benign}",
        private=False,
    )
    default_label: str = setting("harmful", "label of a row that has none", choices=LABELS)


@dataclass
class BenignConfig:
    """Where benign rows come from; null: the rows of the set itself that are labelled benign.

    With the `hub_id` of the set itself it is other rows of the same set, chosen by `keep`; `data.path` then stands for both.
    """

    hub_id: Optional[str] = setting(None, "dataset id on the hub", private=False, hashed=NEVER)
    revision: Optional[str] = setting(None, "pinned commit of hub_id", private=False, hashed=NEVER)
    split: str = setting("train", "split of the hub dataset", private=False, hashed=NEVER)
    path: Optional[str] = setting(None, "local file (jsonl, json, csv, parquet)", private=True, hashed=NEVER)
    keep: dict[str, Optional[str]] = setting(
        {}, "use only rows whose column has this value, such as {label: vanilla_benign}", private=False, added=True
    )
    fields: FieldsConfig = field(default_factory=FieldsConfig)


@dataclass
class SourceConfig:
    """Somebody else's (prompt, trace, answer) rows: where they are, which of them are used, and what their columns mean."""

    name: str = setting("", "short name; becomes the source and the id prefix of every example", private=False)
    hub_id: Optional[str] = setting(None, "dataset id on the hub", private=False, hashed=NEVER)
    revision: Optional[str] = setting(None, "pinned commit of hub_id", private=False, hashed=NEVER)
    split: str = setting("train", "split of the hub dataset", private=False, hashed=NEVER)
    path: Optional[str] = setting(
        None, "local copy (jsonl, json, csv, parquet) to use instead of hub_id", private=True, hashed=NEVER
    )
    recipe: Optional[str] = setting(
        None,
        "name of a set that the project writes itself",
        choices=("micro-directrefusal", "micro-r1act", "micro-retention"),
        hashed=NEVER,
    )
    language: Optional[str] = setting(
        None, "language of its prompts; null goes with any model", choices=("natural", "micro"), hashed=NEVER
    )
    keep: dict[str, Optional[str]] = setting(
        {}, "use only rows whose column has this value, such as {label: vanilla_harmful}; null: any value", private=False
    )
    first: Optional[int] = setting(None, "use only the first so many rows (after keep)", low=1)
    label_list: Optional[str] = setting(
        None,
        "list of labels by row id that comes with the package, such as star1-1; null: the rows' own labels",
        private=False,
        hashed=NEVER,
    )
    fields: FieldsConfig = field(default_factory=FieldsConfig)

    @property
    def place(self) -> tuple[str | None, ...]:
        """Where its rows are: two sources of the same place have the same rows."""
        if self.path is not None:
            return ("file", str(local_path(self.path).resolve()))
        return ("recipe", self.recipe) if self.recipe is not None else ("hub", self.hub_id, self.revision, self.split)


@dataclass
class MixPart(SourceConfig):
    """A part of `data.mix`: a source, and how much of the set comes from it as what.

    `cli/mixture.py` makes it of what the user writes: the choice's YAML with the part's own keys over it.
    """

    data: str = setting("", "choice of data= that it begins with, such as star1 or local", hashed=NEVER)
    share: float = setting(1.0, "share of the final set; those of all parts make 1", above=0.0, high=1.0, hashed=NEVER)
    kind: str = setting(
        HARMFUL,
        "harmful: the set's own labels, without rows labelled benign or retention; benign: rows labelled benign, or all of a "
        "set without labels; retention: every row",
        choices=(HARMFUL, BENIGN, RETENTION),
        hashed=NEVER,
    )


@dataclass
class DataConfig(SourceConfig):
    """The source set: rows of one source, or with `mix` of several."""

    limit: Optional[int] = setting(None, "final number of examples, benign ones included; null: all", low=1)
    benign_ratio: float = setting(0.0, "share of benign examples in the final set (0.25 = one in four)", low=0.0, high=0.95)
    drop_overlap: bool = setting(
        False, "leave out rows whose prompt is one of the evaluation's or the probes'; off: they are counted", added=True
    )
    # Not hashed as a key, since it may hold paths: the content hash of the data describes every part (data/sources.py).
    mix: list[MixPart] = setting(
        [],
        "several sources in one set, such as [{data: star1, share: 0.8}, {data: safechain, kind: benign, share: 0.2}]; a part "
        "takes data, share, kind (harmful, benign or retention), name, path, hub_id, revision, split, keep, first, fields, "
        "label_list",
        private=True,
        hashed=NEVER,
    )
    benign: BenignConfig = field(default_factory=BenignConfig)

    @property
    def parts(self) -> list[tuple[str, MixPart]]:
        """The parts of a mixture with what messages call them: `data.mix[0]`."""
        return [(f"data.mix[{index}]", part) for index, part in enumerate(self.mix)]

    @property
    def hub_ids(self) -> list[str]:
        """The data sets on the hub that its rows come from; those of local copies are not known."""
        sources: list[SourceConfig] = [*self.mix] or [self]
        return list(dict.fromkeys(source.hub_id for source in sources if source.hub_id is not None))

    @property
    def origin(self) -> str:
        """What its rows come from, for cards: hub id or name, and the shares of a mixture; paths are withheld."""
        if not self.mix:
            return str(shareable(self.hub_id or self.name))
        return ", ".join(f"{part.share:g} {shareable(part.hub_id or part.name)} ({part.kind})" for part in self.mix)

    @property
    def pinned(self) -> str:
        """`origin` with the pinned commits."""
        if not self.mix:
            return f"{self.origin}, revision {shareable(self.revision) or 'not pinned'}"
        fetched = [(shareable(part.hub_id), shareable(part.revision)) for part in self.mix if part.hub_id is not None]
        commits = [f"{hub_id} {revision or 'not pinned'}" for hub_id, revision in fetched]
        return self.origin + (f"; revisions: {', '.join(commits)}" if commits else "")
