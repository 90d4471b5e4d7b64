"""An example of a safety set, before and after refinement, and a file of examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import overload

from dgr_lightning.errors import UserError
from dgr_lightning.files import read_jsonl

HARMFUL = "harmful"
"""A prompt to which the source's own answer is a refusal."""
SAFE_COMPLETION = "safe_completion"
"""A prompt from a harmful category that the source answers with help within policy: support, law, correction of a falsehood."""
BENIGN = "benign"
"""A prompt to be helped with, in a set of prompts that are."""
RETENTION = "retention"
"""A problem to reason about, mixed in so that the model keeps its reasoning; it is answered like a benign prompt."""
LABELS = (HARMFUL, SAFE_COMPLETION, BENIGN, RETENTION)


@dataclass(frozen=True)
class Example:
    """An example of a safety set: a prompt, and the reasoning trace and the answer that a model is trained on.

    Attributes:
        id: unique within its source and the same on every machine, such as `star1-68`.
        prompt: the user's request.
        trace: the reasoning between the think marks, without the marks; may be empty.
        answer: the text after the reasoning; never empty.
        label: `harmful` (the answer should refuse), `safe_completion`, `benign` or `retention` (it should not).
        source: name of the set that the example comes from.
    """

    id: str
    prompt: str
    trace: str
    answer: str
    label: str
    source: str


@dataclass(frozen=True)
class RefinedExample(Example):
    """An example after refinement: rewritten by the target model, or the original with the reason why it was not.

    Attributes:
        refined: whether any part of it was written by the target model.
        reason: the check for which a rewrite was not kept; None where nothing failed.
    """

    refined: bool = False
    reason: str | None = None

    @classmethod
    def of(cls, example: Example, *, refined: bool = False, reason: str | None = None, **changes: str) -> RefinedExample:
        """Returns `example` with `changes` to its texts and the outcome of refinement."""
        original = {field.name: getattr(example, field.name) for field in fields(Example)}
        return cls(**original | changes, refined=refined, reason=reason)


class ExampleFile(Sequence[Example]):
    """The examples of a JSONL file, read from disk one by one: only the ids are in memory.

    Attributes:
        ids: of the examples, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Scans the file once; it must not change afterwards.

        Raises:
            UserError: something else has damaged it.
        """
        self.ids: list[str] = []
        self._file = open(path, "rb")  # noqa: SIM115 - stays open for random access
        self._offsets: list[int] = []
        position = 0
        for number, line in enumerate(self._file, start=1):
            try:
                self.ids.append(json.loads(line)["id"])
            except (ValueError, RecursionError, TypeError, KeyError) as error:
                raise UserError(f"{path}, line {number}: damaged; overwrite=true makes the run anew.") from error
            self._offsets.append(position)
            position += len(line)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        """Returns an example, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._offsets[index])
        row = json.loads(self._file.readline())
        return Example(row["id"], row["prompt"], row["trace"], row["answer"], row["label"], row["source"])


def read_refined(path: Path) -> list[RefinedExample]:
    """Returns the examples of a run's `refined.jsonl`, in its order.

    Raises:
        UserError: something else has damaged it.
    """
    try:
        examples = [RefinedExample(**row) for row in read_jsonl(path)]
        for example in examples:
            if not all(isinstance(getattr(example, field.name), str) for field in fields(Example)):
                raise TypeError(f"of {example.id!r}, a part is no text")
        return examples
    except TypeError as error:
        raise UserError(f"{path}: a row is no example of a refined set ({error}); overwrite=true makes it again.") from error
