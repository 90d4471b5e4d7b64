"""A key of the config, and every fact about it: default, sentence, range, whether it is private, which hashes hold it.

No list elsewhere repeats the names of keys: the key itself says whether it may leave the machine and which run hashes hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, field
from typing import Any, Final, Literal

Kind = Literal["train", "refine", "evaluate"]
"""A kind of run: the entry point that it belongs to."""

AUTO: Final = "auto"
Auto = Literal["auto"]
"""Beside a number in the type of a key: what the project chooses, `every: int | Auto`."""

NEVER: tuple[Kind, ...] = ()
TRAINING: tuple[Kind, ...] = ("train",)
TRAINING_AND_REFINEMENT: tuple[Kind, ...] = ("train", "refine")
EVALUATION: tuple[Kind, ...] = ("evaluate",)
EVERY_KIND: tuple[Kind, ...] = ("train", "refine", "evaluate")


def setting(
    default: Any,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    private: bool | None = None,
    hashed: tuple[Kind, ...] = TRAINING_AND_REFINEMENT,
    read_by: tuple[str, ...] | None = None,
    added: bool = False,
    neutral: Any = None,
) -> Any:
    """Returns a config field.

    Args:
        default: its value where nothing else is given.
        sentence: what it means, for `--help` and messages; the first clause stands by itself.
        low: the smallest number that it takes.
        high: the largest one.
        above: a number that it must exceed.
        choices: the values that it takes; None: any, or those of a registry (`cli/registries.py`).
        private: it never leaves the machine, because it names a place on it, a person or a server, or is a text of the user's
            own. None, of a key that takes any text: private until somebody decides that it need not be; of any other: not.
        hashed: the kinds of runs whose hash holds it: those whose result it determines. A key that a later version adds
            separates runs until somebody decides that it need not.
        read_by: of a section with a `method`, the methods that read it; None: all. Keys that are not read are not hashed.
        added: it was added with a default that changes nothing. At its default no hash holds it, so that runs made before it
            existed keep theirs.
        neutral: of an added key whose default is `auto`: the value that changes nothing, and which no hash holds either.
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices}
    metadata = limits | {"help": sentence, "private": private, "hashed": hashed, "read_by": read_by}
    metadata |= {"added": added, "neutral": neutral}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def facts(field: Field[Any]) -> Mapping[str, Any]:
    """Returns the arguments of `setting`, by name; the sentence is `help`.

    Options of a strategy from outside may be plain dataclass fields: those have no sentence and take any value of their type.
    """
    return field.metadata or setting(field.default, "").metadata
