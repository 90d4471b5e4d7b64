"""`data.mix` at the door: what is written of a part, over the YAML of the data choice that it names, becomes a `MixPart`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dgr_lightning.cli.choice_files import near, read_choice
from dgr_lightning.config import DataConfig, FieldsConfig, MixPart, SourceConfig, schema
from dgr_lightning.errors import UserError
from dgr_lightning.example import BENIGN

_OVERRIDES = ("name", "path", "hub_id", "revision", "split", "keep", "first", "fields", "label_list")
_KEYS = ("data", "share", "kind", *_OVERRIDES)
_SOURCE = {field.name for field in fields(SourceConfig)}
# What a choice says of a set of its own: the shares decide instead.
_WHOLE_SET = {field.name for field in fields(DataConfig)} - _SOURCE


def take_parts(plain: Any, folders: tuple[Path, ...]) -> list[MixPart]:
    """Takes `data.mix` out of composed YAML and returns its parts, typed. What is no list of mappings is left to the schema.

    Args:
        plain: the whole config as nested dicts; changed in place.
        folders: where data choices are looked up: conf/, and the folder of --config-dir.

    Raises:
        UserError: a key or a choice that does not exist, a value of the wrong type or out of range; the message names the part.
    """
    data = plain.get("data") if isinstance(plain, dict) else None
    if not isinstance(data, dict):
        return []
    raw = data.get("mix")
    if not isinstance(raw, list) or not all(isinstance(part, dict) for part in raw):
        return []
    data["mix"] = []
    return [_part(part, f"data.mix[{index}]", folders) for index, part in enumerate(raw)]


def tell_apart(data: DataConfig) -> None:
    """Numbers the names of different sources that are called alike, and gives the set the language of its parts.

    Names become the sources and the id prefixes of examples. Parts that read the same rows keep one name: their ids are told
    apart by the rows. Both keys are changed in place.
    """
    named: dict[str, Any] = {}
    for part in data.mix:
        name, number = part.name, 1
        while named.setdefault(name, part.place) != part.place:
            number += 1
            name = f"{part.name}-{number}"
        part.name = name
    if data.mix and data.language is None:
        data.language = next((part.language for part in data.mix if part.language is not None), None)


def check_mixture(data: DataConfig) -> None:
    """Checks that parts make a set, and that nothing else says where its rows come from.

    Raises:
        UserError: keys of the set itself are given too, shares do not make 1, a part has no source, or languages differ.
    """
    _check_own_keys(data)
    total = math.fsum(part.share for part in data.mix)
    if abs(total - 1) > 1e-9:
        listed = ", ".join(f"{part.name} {part.share:g}" for part in data.mix)
        raise UserError(f"data.mix: the shares of its parts make {total:.10g}, not 1 ({listed}).")
    for key, part in data.parts:
        if part.path is None and part.hub_id is None and part.recipe is None:
            raise UserError(
                f"{key} (data: {part.data}): name its rows with path: <jsonl, json, csv or parquet> or hub_id: <owner/name>."
            )
        if part.language is not None and part.language != data.language:
            raise UserError(
                f"{key} ({part.name}) is in the {part.language} language, other parts of data.mix are in the {data.language} "
                "one. Take parts of one language."
            )


def _check_own_keys(data: DataConfig) -> None:
    plain = DataConfig()
    own = [name for name in (*sorted(_SOURCE), "benign_ratio", "benign") if name not in ("name", "language")]
    given = [f"data.{name}" for name in own if getattr(data, name) != getattr(plain, name)]
    if not given:
        return
    benign = "; for data.benign_ratio, a part with kind: benign" if data.benign_ratio else ""
    named = data.name not in ("", "mix")
    chosen = f" They may come from data={data.name}: leave it out, in an experiment `override /data: mix`." if named else ""
    raise UserError(
        f"{', '.join(given)} with data.mix: a mixture has no rows of its own. Write these into its parts, such as "
        f"{{data: local, path: rows.jsonl, share: 0.7}}{benign}.{chosen}"
    )


def _part(raw: Mapping[str, Any], key: str, folders: tuple[Path, ...]) -> MixPart:
    for name in raw:
        if name not in _KEYS:
            raise UserError(f"{key}.{name}: no key of a part.{near(str(name), _KEYS)} A part has: {', '.join(_KEYS)}.")
    for name, example in (("data", "data: star1, or data: local with a path"), ("share", "share: 0.7 for 70 % of the set")):
        if raw.get(name) is None:
            raise UserError(f"{key}: {name} is missing; write {example}.")
    choice, own = str(raw["data"]), {name: value for name, value in raw.items() if name in _OVERRIDES}
    columns = own.get("fields")
    for name in columns if isinstance(columns, dict) else ():
        known = [field.name for field in fields(FieldsConfig)]
        if name not in known:
            raise UserError(f"{key}.fields.{name}: no such key.{near(str(name), known)} fields has: {', '.join(known)}.")
    base = _source(choice, raw.get("kind"), key, folders)
    if "hub_id" in own:
        base["revision"] = None  # the pinned commit is one of the repository that was chosen before
    merged = _merged(base, own) | {"data": choice, "share": raw["share"]}
    merged |= {"kind": raw["kind"]} if "kind" in raw else {}
    part: MixPart = schema.section(MixPart, merged, f"{key}.", {})
    part.name = part.name or choice
    return part


def _source(choice: str, kind: Any, key: str, folders: tuple[Path, ...]) -> dict[str, Any]:
    """Returns what a data choice says of its rows; for benign rows, of the source of benign rows that it names, if it does."""
    base = _read_choice(choice, key, folders)
    benign = base.get("benign") or {}
    source = {name: value for name, value in base.items() if name not in _WHOLE_SET}
    if kind == BENIGN and (benign.get("hub_id") or benign.get("path")):
        return {"name": f"{base.get('name') or choice}-benign", "language": base.get("language")} | benign
    return source


def _read_choice(choice: str, key: str, folders: tuple[Path, ...]) -> dict[str, Any]:
    base = read_choice("data", choice, f"{key}.data={choice}", folders, "source", without=("mix",))
    if base.get("mix"):
        raise UserError(f"{key}.data={choice}: no plain source: a part takes one without a mix.")
    return base


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts with others over them; as on the command line, mappings are merged, and null empties one."""
    merged = dict(base)
    for name, value in over.items():
        there = merged.get(name)
        if value is None and name in ("fields", "keep"):
            merged[name] = {}
        elif isinstance(value, dict) and isinstance(there, dict):
            merged[name] = _merged(there, value)
        else:
            merged[name] = value
    return merged
