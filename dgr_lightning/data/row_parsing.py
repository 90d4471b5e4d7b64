"""Parses the rows of a safety set: exactly one prompt, one trace and one answer each, or a stable reason for rejecting the row.

Public sets lay out the same triple in different ways; a field map (`FieldsConfig`) says which column holds what. No row is
repaired by guessing: rows that do not split are rejected, counted and shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any

from rich.markup import escape

from dgr_lightning.config import FieldsConfig
from dgr_lightning.console import say
from dgr_lightning.data.file_readers import Row, columns
from dgr_lightning.errors import UserError
from dgr_lightning.example import LABELS, Example, RefinedExample

OPEN, CLOSE = "<think>", "</think>"
# End-of-turn marks of the models that the public sets were written with; some rows carry them as text.
END_MARKS = ("<｜end▁of▁sentence｜>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")

REASONS = {
    "missing_field": "the row lacks a column of the field map, or its id is empty",
    "not_text": "a field holds a value that is not text",
    "not_unicode": "a field holds half of a surrogate pair, which cannot be encoded",
    "empty_prompt": "the prompt is empty",
    "no_close": "the response has no </think>",
    "several_traces": "the response has more than one </think>",
    "think_mark_inside": "the trace or the answer contains a think mark",
    "end_mark_inside": "the trace or the answer contains an end-of-turn mark",
    "no_answer_mark": "the answer column does not contain the text of data.fields.answer_after",
    "empty_answer": "nothing follows the trace",
    "unknown_label": f"the label is none of {', '.join(LABELS)}, and data.fields.labels does not map it",
    "duplicate_id": "an earlier row has this id",
    "overlap": "the model is measured on this prompt (data.drop_overlap=true)",
}
NUM_SHOWN = 5


REFINED_COLUMNS = frozenset(field.name for field in dataclass_fields(RefinedExample))
"""The columns of a refined set: those of a run's `refined.jsonl`."""


class RejectedRow(Exception):
    """Raised for a row that does not make an example; the message is a key of `REASONS`."""


@dataclass(frozen=True)
class _ColumnNames:
    """A field map resolved against the columns present: a response, or an answer with a trace column or a constant trace."""

    prompt: str
    id: str | None
    response: str | None
    trace: str | None
    answer: str | None
    label: str | None


def parse_rows(
    rows: Sequence[tuple[int, Row]],
    fields: FieldsConfig,
    name: str,
    *,
    key: str,
    default_label: str,
    labels: Mapping[str, str] | None = None,
    refined: bool = False,
    is_measured: Callable[[str], bool] | None = None,
) -> tuple[dict[int, Example], Counter[str]]:
    """Returns index of a row → its example, in order, and the number of rejected rows by reason; prints the first few of them.

    Args:
        rows: rows with their indices in the source.
        fields: which column holds what.
        name: source of the examples and prefix of their ids.
        key: config key of the field map, for messages.
        default_label: label of a row without one.
        labels: id of a row → its label, which counts instead of the row's own (`data/label_lists.py`).
        refined: the rows are those of a refined set: they keep their ids and their sources.
        is_measured: whether the model is measured on a prompt; such rows are rejected. None: no row is.

    Raises:
        UserError: no row has a mapped column, or every row is rejected.
    """
    names = _resolve_columns(fields, columns([row for _, row in rows]), key)
    examples: dict[int, Example] = {}
    rejected: Counter[str] = Counter()
    shown: list[str] = []
    seen: set[str] = set()
    for index, row in rows:
        try:
            example = _parse_row(index, row, names, fields, name, default_label, labels or {})
            if refined:
                example = replace(example, id=str(_name(row["id"])), source=str(_name(row["source"])))
            if is_measured is not None and is_measured(example.prompt):
                raise RejectedRow("overlap")
            if example.id in seen:
                raise RejectedRow("duplicate_id")
        except RejectedRow as rejection:
            reason = str(rejection)
            if len(shown) < NUM_SHOWN:
                shown.append(f"row {index}: {reason} ({REASONS[reason]})")
            rejected[reason] += 1
            continue
        seen.add(example.id)
        examples[index] = example
    if not examples:
        raise UserError(f"{name}: all {len(rows)} rows were rejected ({format_counts(rejected)}). " + "; ".join(shown) + ".")
    for line in shown:
        say(f"[yellow]{escape(name)}, {escape(line)}[/]")
    if rejected.total() > len(shown):
        say(f"[yellow]{escape(name)}: {rejected.total() - len(shown)} more rows rejected[/]")
    return examples, rejected


def split_response(response: str) -> tuple[str, str]:
    """Splits a response into trace and answer, both stripped of surrounding white space.

    The opening mark may be missing (some chat templates put it into the prompt), the response may end with end-of-turn marks,
    and the trace may be empty.

    Raises:
        RejectedRow: the response is not exactly one trace and one answer.
    """
    num_closes = response.count(CLOSE)
    if num_closes != 1:
        raise RejectedRow("several_traces" if num_closes else "no_close")
    trace, answer = response.strip().removeprefix(OPEN).split(CLOSE)
    return _clean(trace, answer)


def _clean(trace: str, answer: str) -> tuple[str, str]:
    """Strips trace and answer of white space, and the answer of end-of-turn marks; rejects marks anywhere else."""
    trace, answer = trace.strip(), answer.strip()
    while answer.endswith(END_MARKS):
        answer = next(answer.removesuffix(mark) for mark in END_MARKS if answer.endswith(mark)).rstrip()
    if not answer:
        raise RejectedRow("empty_answer")
    if any(mark in text for mark in (OPEN, CLOSE) for text in (trace, answer)):
        raise RejectedRow("think_mark_inside")
    if any(mark in text for mark in END_MARKS for text in (trace, answer)):
        raise RejectedRow("end_mark_inside")
    return trace, answer


def _parse_row(
    index: int,
    row: Row,
    names: _ColumnNames,
    fields: FieldsConfig,
    source: str,
    default_label: str,
    labels: Mapping[str, str],
) -> Example:
    row_id = index if names.id is None else _name(row.get(names.id))
    if row_id is None or row_id == "":
        raise RejectedRow("missing_field")
    prompt = _text(row, names.prompt).strip()
    if not prompt:
        raise RejectedRow("empty_prompt")
    if names.response is not None:
        trace, answer = split_response(_text(row, names.response))
    else:
        assert names.answer is not None
        trace = _text(row, names.trace) if names.trace is not None else fields.constant_trace or ""
        trace, answer = _clean(trace, _text_after(fields.answer_after, _text(row, names.answer), prompt))
    label = labels.get(str(row_id)) or (_name(row.get(names.label)) if names.label is not None else None)
    if label is None or label == "":
        label = default_label
    label = fields.labels.get(str(label), str(label))
    if label not in LABELS:
        raise RejectedRow("unknown_label")
    return Example(f"{source}-{row_id}", prompt, trace, answer, label, source)


def _text(row: Row, column: str) -> str:
    """Returns a field's text; an empty cell (None, as csv and parquet write it) is the empty text."""
    if column not in row:
        raise RejectedRow("missing_field")
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RejectedRow("not_text")
    return _encodable(value)


def _name(value: Any) -> Any:
    """Returns the value of an id, a label or a source: a text, a number, true or false, or None."""
    if isinstance(value, (dict, list)):
        raise RejectedRow("not_text")
    return _encodable(value) if isinstance(value, str) else value


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RejectedRow("not_unicode") from None
    return text


def _text_after(mark: str | None, text: str, prompt: str) -> str:
    """Returns the text after the mark; where the text repeats the prompt, the search starts after the prompt."""
    if not mark:
        return text
    repeated = text.find(prompt)
    start = text.find(mark, repeated + len(prompt) if repeated >= 0 else 0)
    if start < 0:
        raise RejectedRow("no_answer_mark")
    return text[start + len(mark) :]


def _resolve_columns(fields: FieldsConfig, present: list[str], key: str) -> _ColumnNames:
    """Resolves a field map against the columns that the rows have (see `FieldsConfig`)."""
    parts = {
        "trace": fields.trace,
        "answer": fields.answer,
        "constant_trace": fields.constant_trace,
        "answer_after": fields.answer_after,
    }
    split = [part for part, value in parts.items() if value is not None]
    if fields.response is not None and split:
        raise UserError(
            f"{key}.response={fields.response} and {key}.{split[0]} exclude each other. "
            f"Set {key}.response=null to read trace and answer, or {key}.{split[0]}=null to read the response."
        )
    response = trace = answer = None
    if fields.response is not None or (not split and "response" in present):
        response = fields.response or "response"
    elif split or ("trace" in present and "answer" in present):
        answer = fields.answer or "answer"
        trace = None if fields.constant_trace is not None else fields.trace or "trace"
    else:
        raise UserError(
            f"{key}: no row has a column 'response', or columns 'trace' and 'answer'. Found: {', '.join(present)}. "
            f"Set {key}.response=… (a column with think marks), or {key}.trace=… and {key}.answer=…."
        )
    label = fields.label or ("label" if "label" in present else None)
    names = _ColumnNames(fields.prompt or "prompt", fields.id, response, trace, answer, label)
    for part, column in asdict(names).items():
        if column is not None:
            check_column(column, f"{key}.{part}", present, f"Set {key}.{part}=…")
    return names


def check_column(column: str, key: str, present: list[str], remedy: str) -> None:
    """Raises a UserError if no row has the column that the config key names; the message ends with the remedy."""
    if column not in present:
        raise UserError(f"{key}: no row has a column {column!r}. Found: {', '.join(present)}. {remedy}.")


def format_counts(counts: Mapping[str, int]) -> str:
    """Formats names with their counts, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common())
