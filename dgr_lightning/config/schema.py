"""From composed YAML to a `Config`: types, ranges, unknown keys.

The dataclasses in `config` carry types, ranges and help sentences; a message is one sentence that begins with the override to
change and says what it takes.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from dgr_lightning.config.keys import Key, keys
from dgr_lightning.config.run import Config
from dgr_lightning.config.setting import AUTO, Auto
from dgr_lightning.errors import UserError

Members = Mapping[str, tuple[str, ...]]
"""Key → the names that its registry has; it also takes `package.module:Name`, a member from outside the project."""


def defaults() -> dict[str, Any]:
    """Returns the schema's own values as nested dicts: the node that every composition starts from."""
    return asdict(Config())


def is_key(key: str) -> bool:
    """Whether a dotted key is one of the schema's: a value, a section, or an entry of a mapping such as evaluation.path."""
    if key in keys() or any(known.startswith(f"{key}.") for known in keys()):
        return True
    parent = key.rpartition(".")[0]
    if parent in keys():
        return get_origin(keys()[parent].hint) is dict
    above = parent.rpartition(".")[0]
    return above in keys() and _holds_mappings(keys()[above].hint)


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """Returns the clause that says that a key does not exist, and which one may have been meant.

    Args:
        key: what was written.
        others: further valid names, such as config groups.
    """
    known = [*keys(), *others]
    section, _, last = key.rpartition(".")
    inside = [name[len(section) + 1 :] for name in keys() if section and name.startswith(f"{section}.")]
    near = [name for name in known if name.rpartition(".")[2] == last]
    if inside:
        near += [f"{section}.{name}" for name in difflib.get_close_matches(last, inside, n=2, cutoff=0.5)]
    else:
        near += difflib.get_close_matches(key, known, n=2, cutoff=0.6)
        near += [name for name in known if difflib.get_close_matches(last, [name.rpartition(".")[2]], cutoff=0.75)]
    text = f"no key {key!r}."
    if near:
        text += f" Did you mean {' or '.join(list(dict.fromkeys(near))[:3])}?"
    if inside:
        text += f" {section} has: {', '.join(inside)}."
    elif not near:
        text += f" Keys begin with one of: {', '.join(dict.fromkeys(name.partition('.')[0] for name in keys()))}."
    return text


def expected(key: str, known: Key, members: Members) -> str:
    """Returns what a key takes, in words: 'a number above 0 and at most 1, or null'."""
    hint, optional = _unwrap(known.hint)
    optional = optional or get_origin(hint) is dict
    limits = known.facts
    if choices := _choices(key, known, members):
        text = f"one of {', '.join(choices)}" + (", or your own package.module:Name" if key in members else "")
    else:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        origin = get_origin(hint)
        items = "{data: star1, share: 0.8}, …" if any(map(is_dataclass, get_args(hint))) else "a,b,…"
        pairs = "{harmful: {temperature: 0}, …}" if _holds_mappings(hint) else "{name: text, …}"
        text = {dict: f"a mapping {pairs}", list: f"a list [{items}]"}[origin] if origin else names[hint]
    bounds = [f"above {limits['above']:g}"] if limits["above"] is not None else []
    bounds += [f"at least {limits['low']:g}"] if limits["low"] is not None else []
    bounds += [f"at most {limits['high']:g}"] if limits["high"] is not None else []
    text += f" {' and '.join(bounds)}" if bounds else ""
    return text + (", or auto" if _takes_auto(known.hint) else "") + (", or null" if optional else "")


def _choices(key: str, known: Key, members: Members) -> tuple[str, ...]:
    """Returns the names that a key takes, its own and its registry's; empty where it takes any value of its type."""
    return (*(known.facts["choices"] or ()), *members.get(key, ()))


def check_mapping(key: str, value: Any) -> None:
    """Raises a UserError where a key that takes a mapping is given anything else, which composition could not merge."""
    if key in keys() and get_origin(keys()[key].hint) is dict:
        _value(key, value, keys()[key], {})


def build(plain: Any, members: Members) -> Config:
    """Returns the typed config of composed, resolved YAML.

    Args:
        plain: nested dicts.
        members: of the keys whose values are found by a registry.

    Raises:
        UserError: a key that no schema knows, a value of the wrong type or out of range; the message names the override.
    """
    built: Config = section(Config, plain, "", members)
    return built


def value_for(key: str, place: str, value: Any) -> Any:
    """Returns a value in the type and range of a key, for a place that stands in for it.

    Args:
        key: dotted, such as `evaluation.temperature`.
        place: what messages begin with, such as `evaluation.by_kind.harmful.temperature`.
        value: of any type.

    Raises:
        UserError: it is none that the key takes.
    """
    return _value(place, value, keys()[key], {})


def section(schema: type, plain: Any, prefix: str, members: Members) -> Any:
    """Returns an instance of a dataclass whose fields are made by `setting`, from plain values.

    Args:
        schema: the dataclass; sections in it are dataclasses too.
        plain: nested dicts.
        prefix: what its keys begin with on the command line, such as `sft.`.
        members: as for `build`.

    Raises:
        UserError: as `build`.
    """
    if not isinstance(plain, dict):
        inside = ", ".join(f"{prefix}{field.name}" for field in fields(schema))
        raise UserError(f"{prefix.rstrip('.')}={plain!r}: a section, not a value. Set one of its keys: {inside}.")
    hints = get_type_hints(schema)
    known = {field.name: Key(field, hints[field.name]) for field in fields(schema)}
    for name in plain:
        if name not in known:
            raise UserError(f"{prefix}{name}={plain[name]!r}: {unknown_key(f'{prefix}{name}')}")
    values: dict[str, Any] = {}
    for name, value in plain.items():
        if is_dataclass(hints[name]):
            values[name] = section(hints[name], value, f"{prefix}{name}.", members)
        else:
            values[name] = _value(f"{prefix}{name}", value, known[name], members)
    return schema(**values)


def _unwrap(hint: Any) -> tuple[Any, bool]:
    """Returns a type without its Optional and its `auto`, and whether it takes null."""
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg not in (type(None), Auto))
        return inner, type(None) in get_args(hint)
    return hint, False


def _holds_mappings(hint: Any) -> bool:
    """Whether a type is a mapping of mappings, such as evaluation.by_kind."""
    return get_origin(hint) is dict and get_origin(get_args(hint)[1]) is dict


def _takes_auto(hint: Any) -> bool:
    return Auto in get_args(hint)


def _value(key: str, value: Any, known: Key, members: Members) -> Any:
    """Returns a value in the key's type and range, or raises a UserError that names the override."""
    kind, optional = _unwrap(known.hint)
    if value is None and optional:
        return None
    if value == AUTO and _takes_auto(known.hint):
        return AUTO
    if value is None and get_origin(kind) is dict:
        return {}  # a mapping on the command line is merged into the present one: null empties it
    try:
        converted = _convert(value, kind)
        _check_limits(key, converted, known, members)
    except (ValueError, TypeError, OverflowError):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        near = difflib.get_close_matches(str(value), _choices(key, known, members), n=1)
        hinted = f" Did you mean {near[0]}?" if near else ""
        meaning = known.facts["help"].split(";")[0]
        meant = f" ({meaning})" if meaning else ""
        raise UserError(f"{key}={shown}: expected {expected(key, known, members)}{meant}.{hinted}") from None
    return converted


def _check_limits(key: str, value: Any, known: Key, members: Members) -> None:
    """Raises a ValueError where a value of the right type is none of the choices, or out of range."""
    choices = _choices(key, known, members)
    if choices and value not in choices and not (key in members and ":" in value):
        raise ValueError
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        above, low, high = (known.facts[limit] for limit in ("above", "low", "high"))
        if (above is not None and value <= above) or (low is not None and value < low):
            raise ValueError
        if (high is not None and value > high) or not math.isfinite(value):
            raise ValueError


def _convert(value: Any, kind: Any) -> Any:
    origin = get_origin(kind)
    if origin is dict and isinstance(value, dict):
        inner, optional = _unwrap(get_args(kind)[1])
        as_it_is = inner is Any  # parsed later, by the schema of the strategy that they belong to
        return {
            _convert(name, str): item if as_it_is or (item is None and optional) else _convert(item, inner)
            for name, item in value.items()
        }
    if origin is list and isinstance(value, list):
        return [_convert(item, get_args(kind)[0]) for item in value]
    if kind is bool and isinstance(value, bool):
        return value
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError
    if kind is str:
        return str(value)
    if kind is float:
        return float(value)
    if kind is int:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError
        return int(value)
    raise TypeError
