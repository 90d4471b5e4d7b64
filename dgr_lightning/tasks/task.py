"""What a task is: where its problems come from, and how a row becomes a problem."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

EVALUATION = "evaluation"
PROBE = "probe"

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""What reasoning prompts end in; the wording that DeepSeek-R1's model card recommends."""


class BadRow(Exception):
    """A row that holds no problem; the message says what is missing, the caller where."""


@dataclass(frozen=True)
class Problem:
    """One problem or request that a model is given.

    Attributes:
        id: unique in its task and split, such as `gsm8k-17`.
        kind: `reasoning` (graded against `gold`), `harmful` (should be refused) or `benign` (should not).
        prompt: what the user says.
        gold: the right answer; None where there is nothing to grade.
    """

    id: str
    kind: str
    prompt: str
    gold: str | None


@dataclass(frozen=True)
class Task:
    """A benchmark or request set.

    Attributes:
        name: as in `evaluation.tasks` and `probes.tasks`.
        kind: kind of its problems.
        read: makes of a row and its index (id part, prompt, gold), or None for a row that is no part of the task.
            Raises `BadRow`.
        splits: our split (`evaluation`, `probe`) → split of the hub dataset. Without a probe split it is for reporting only.
        hub_id: dataset on the hub; None: the project makes the problems itself.
        revision: pinned commit of it; None: the default branch.
        subset: the dataset's own configuration.
        language: language of its prompts, as in `model.language`.
        left_out: per split, `fingerprint`s of prompts that are no part of it, because another task reports them.
    """

    name: str
    kind: str
    read: Callable[[Row, int], tuple[str, str, str | None] | None]
    splits: Mapping[str, str]
    hub_id: str | None = None
    revision: str | None = None
    subset: str | None = None
    language: str = "natural"
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict)


def cell(row: Row, *columns: str) -> str:
    """Returns the text of the first of these columns that the row has.

    Raises:
        BadRow: it has none of them, or the cell holds no text.
    """
    for column in columns:
        if column in row:
            if not isinstance(row[column], str) or not row[column].strip():
                raise BadRow(f"column {column!r} holds no text")
            return row[column].strip()
    raise BadRow(f"no column {' or '.join(map(repr, columns))}; its columns are {', '.join(map(str, row))}")


def fingerprint(prompt: str) -> str:
    """Returns 12 hex digits of a prompt's words: stands for a prompt that is better not written out."""
    return hashlib.sha256(" ".join(re.findall(r"[a-z0-9]+", prompt.lower())).encode()).hexdigest()[:12]
