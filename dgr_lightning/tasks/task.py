"""A task: where its problems come from, how a row becomes a problem, and what grades an answer to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dgr_lightning.errors import UserError
from dgr_lightning.tasks.metrics import KINDS, REASONING
from dgr_lightning.tasks.prompt import BARE_SOURCE, OPTIONS, QUESTION, Question, what_is_missing

TaskRow = Mapping[str, Any]
"""A row of a benchmark, as its file or the hub has it."""

EVALUATION = "evaluation"
PROBE = "probe"

LENGTHS = ("short", "medium", "long")
"""How long the outputs to a task are expected to be, beside those to other tasks: it orders generation and nothing else."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class BadRow(Exception):
    """A row that holds no problem. The message says what is missing; the caller adds where."""


@dataclass(frozen=True)
class Problem:
    """One problem or request that a model is given.

    Attributes:
        id: unique in its task and split, such as `gsm8k-17`.
        kind: `reasoning` (graded against `gold`), `harmful` (should be refused) or `benign` (should not).
        prompt: the user's message.
        gold: the right answer; None where there is nothing to grade.
        question: what the prompt asks, without instruction, context and options. Two that share its words are the same.
        category: the data set's own name for the kind of problem; None: it has none.
    """

    id: str
    kind: str
    prompt: str
    gold: str | None
    question: str = field(default="", compare=False)
    category: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Task:
    """A benchmark or request set. Its rows come from `make`, from a local copy, or from the hub, in this order.

    Attributes:
        name: as in `evaluation.tasks` and `probes.tasks`, and what files and figures of a run are called by.
        kind: kind of its problems, one of `KINDS`.
        read: turns a row and its index into a `Question`, or a tuple of its first fields (id part, question, gold), or into
            None where the row does not belong to the task. Raises `BadRow`.
        splits: our split (`evaluation`, `probe`) → split of the hub dataset. A task without a probe split is only reported.
        grader: what compares answers with the gold ones, a name that `scoring.grader.GRADERS` knows; None where the judge says
            whether an answer refuses.
        prompt: the user's message: a text with `{question}`, and with `{options}` for multiple choice (`tasks/prompt.py`).
        prompt_source: where that wording is from, for people who compare figures.
        hub_id: dataset on the hub; None: a local copy has to be named, unless the task makes its rows itself.
        revision: pinned commit of it; None: the default branch.
        subset: the dataset's own configuration.
        make: returns the rows of one of our splits, for problems that are generated and not read.
        gated: whether the hub hands it out only to accounts that have accepted its terms.
        licence: of the data, as its page on the hub or its repository names it.
        version: hashed with the name: raise it whenever `make` returns other rows, or whenever `read`, `prompt` or `left_out`
            make another problem of the same row. The first version of a task that reads its rows is in no hash.
        language: language of its prompts, as in `model.language`.
        outputs: how long outputs to it are expected to be, one of `LENGTHS`: the longest are begun first.
        left_out: per split, the `fingerprint`s of prompts that are left out of it, because another task reports them.
    """

    name: str
    kind: str
    read: Callable[[TaskRow, int], Question | tuple[str, str, str | None] | None]
    splits: Mapping[str, str]
    grader: str | None = None
    prompt: str = QUESTION
    prompt_source: str = BARE_SOURCE
    hub_id: str | None = None
    revision: str | None = None
    subset: str | None = None
    gated: bool = False
    licence: str = ""
    make: Callable[[str], Sequence[TaskRow]] | None = None
    version: int = 1
    language: str = "natural"
    outputs: str = "medium"
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what every use of a task relies on.

        Raises:
            UserError: a name that no file can have, an unknown kind or length, a grader where the kind has no use for one, or a
                prompt without the question.
        """
        if not _NAME.fullmatch(self.name):
            raise UserError(f"task {self.name!r}: files are named after it; use letters, digits, '_' and '-' alone.")
        if self.kind not in KINDS:
            raise UserError(f"task {self.name}: kind={self.kind!r}; expected one of {', '.join(KINDS)}.")
        if self.outputs not in LENGTHS:
            raise UserError(f"task {self.name}: outputs={self.outputs!r}; expected one of {', '.join(LENGTHS)}.")
        if (self.grader is None) == (self.kind == REASONING.name):
            remedy = (
                "name its grader, such as grader='maths'" if self.grader is None else "a judge reads its answers: grader=None"
            )
            raise UserError(f"task {self.name}, of kind {self.kind}: {remedy}.")
        if missing := what_is_missing(self.prompt, choice=OPTIONS in self.prompt):
            raise UserError(f"task {self.name}: its prompt does not hold {missing}.")

    @property
    def is_choice(self) -> bool:
        """Whether its questions are multiple choice: their options are shown, and the answer is a letter."""
        return OPTIONS in self.prompt


def cell(row: TaskRow, *columns: str) -> str:
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
