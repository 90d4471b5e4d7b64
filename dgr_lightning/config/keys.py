"""The keys of the config by their dotted names, and what follows from the facts that stand at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from dgr_lightning.config.run import Config
from dgr_lightning.config.setting import Kind, facts
from dgr_lightning.config.shareable import shareable


@dataclass(frozen=True)
class Key:
    """A key that holds a value: its dataclass field, and the type of its value."""

    field: Field[Any]
    hint: Any

    @property
    def facts(self) -> Mapping[str, Any]:
        """The arguments of its `setting`, by name."""
        return facts(self.field)

    @property
    def private(self) -> bool:
        """Whether it must not leave the machine; of a key that takes any text and does not say, yes."""
        decided = self.facts["private"]
        return self.takes_any_text if decided is None else bool(decided)

    @property
    def takes_any_text(self) -> bool:
        """Whether its value is, or may hold, a text that nobody but the user chose: a path, an address, a name, a prompt."""
        return self.facts["choices"] is None and _holds_text(self.hint)

    @property
    def default(self) -> Any:
        """Its value where nothing else is given."""
        factory = self.field.default_factory
        return self.field.default if factory is MISSING else factory()


def _holds_text(hint: Any) -> bool:
    return hint in (str, Any) or is_dataclass(hint) or any(map(_holds_text, get_args(hint)[get_origin(hint) is dict :]))


@cache
def keys() -> dict[str, Key]:
    """Returns every key that holds a value, dotted; sections themselves are not in it."""
    return dict(_walk(Config, ""))


def _walk(section: type, prefix: str) -> Iterator[tuple[str, Key]]:
    hints = get_type_hints(section)
    for field in fields(section):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(hint):
            yield from _walk(hint, f"{key}.")  # type: ignore[arg-type]
        else:
            yield key, Key(field, hint)


def is_private(key: str) -> bool:
    """Whether a dotted key must not leave the machine; keys of an earlier version, which are no keys any more, need not."""
    return key in keys() and keys()[key].private


def public(cfg: Config) -> dict[str, Any]:
    """Returns a config as nested dicts, without the keys that must not leave the machine.

    A value of another key that gives away a place, a person or a secret all the same is withheld.
    """
    shared: dict[str, Any] = shareable(_nested(cfg, [key for key, known in keys().items() if not known.private]))
    return shared


def hashed(cfg: Config, kind: Kind) -> dict[str, Any]:
    """Returns the keys that determine the result of a kind of run, with their values as they stand, as nested dicts."""

    def counts(key: str, known: Key) -> bool:
        neutral = known.facts["added"] and value_of(cfg, key) in (known.default, known.facts["neutral"])
        return kind in known.facts["hashed"] and not neutral

    return _nested(cfg, [key for key, known in keys().items() if counts(key, known)])


def added_values(section: Any) -> dict[str, Any]:
    """Returns the keys of a section that a later version added and that some hash holds, where they are not at the default."""
    known = {field.name: Key(field, None) for field in fields(section)}
    added = [name for name, key in known.items() if key.facts["added"] and key.facts["hashed"]]
    return {name: getattr(section, name) for name in added if getattr(section, name) != known[name].default}


def unread_by_method(section: str, method: str) -> list[str]:
    """Returns the keys of a section that its method does not read: their values change nothing."""
    inside = {key: known.facts["read_by"] for key, known in keys().items() if key.startswith(f"{section}.")}
    return [key for key, methods in inside.items() if methods is not None and method not in methods]


def value_of(cfg: Config, key: str) -> Any:
    """Returns the value of a dotted key."""
    value: Any = cfg
    for name in key.split("."):
        value = vars(value)[name]
    return value


def _nested(cfg: Config, chosen: list[str]) -> dict[str, Any]:
    """Returns some keys of a config, and all of their sections, even those of which no key was chosen."""
    plain = asdict(cfg)
    nested: dict[str, Any] = {}
    for key in chosen:
        *sections, name = key.split(".")
        source, place = plain, nested
        for section in sections:
            source, place = source[section], place.setdefault(section, {})
        place[name] = source[name]
    return nested
