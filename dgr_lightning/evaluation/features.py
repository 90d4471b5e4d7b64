"""The columns of `<task>.jsonl` for `datasets`: one schema for the outputs of every task, model and judge.

    from datasets import load_dataset
    from dgr_lightning.evaluation.features import features
    load_dataset("json", data_files=["runs/…/evaluation/base/*.jsonl", …], features=features())

Without it `datasets` takes the columns and their types from the first lines of the first file, and refuses a later file that
has a column more, or a text where those lines had nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Features

COLUMNS = {
    "id": "string",
    "sample": "int64",
    "kind": "string",
    "prompt": "string",
    "attack": "string",
    "request": "string",
    "gold": "string",
    "category": "string",
    "output": "string",
    "num_tokens": "int64",
    "finish_reason": "string",
    "prefill": "string",
    "thinking_capped": "bool",
    "correct": "bool",
    "refused": "bool",
    "outcome": "string",
    "boxed": "bool",
    "final": "string",
    "grader": "string",
}
"""Column → its type, as `evaluation.records.record` writes it; null where a line has none."""

JUDGED = {
    "judge": "string",
    "part": "string",
    "refused": "bool",
    "harmful": "bool",
    "probability": "float64",
    "score": "float64",
    "error": "string",
}
"""The fields of each verdict in the column `judged`, a list."""


def features() -> Features:
    """Returns the schema of every `<task>.jsonl`."""
    from datasets import Features, List, Value

    columns = {name: Value(kind) for name, kind in COLUMNS.items()}
    return Features(columns | {"judged": List({name: Value(kind) for name, kind in JUDGED.items()})})
