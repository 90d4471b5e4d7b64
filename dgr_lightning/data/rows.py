"""A row of a safety set → an example: exactly one prompt, one trace and one answer, or a stable reason why not.

The public sets write the same triple in different ways; a field map (`FieldsConfig`) says which column holds what. No row is
mended by guessing: what does not split is rejected, counted and shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.markup import escape

from dgr_lightning.config import FieldsConfig
from dgr_lightning.console import say
from dgr_lightning.data.readers import Row, columns
from dgr_lightning.errors import UserError
from dgr_lightning.example import BENIGN, HARMFUL, Example

OPEN, CLOSE = "<think>", "</think>"
# What ends a turn in the tokenizers that the public sets were written with; some rows carry it as text.
END_MARKS = ("<｜end▁of▁sentence｜>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")

REASONS = {
    "missing_field": "a column of the field map is not in this row, or its id is empty",
    "not_text": "a field holds something else than text",
    "not_unicode": "a field holds half of a surrogate pair, which no file or tokenizer takes",
    "empty_prompt": "there is no prompt",
    "no_close": "the response has no </think>",
    "several_traces": "there is more than one </think>",
    "think_mark_inside": "a think mark stands inside the trace or the answer",
    "end_mark_inside": "an end-of-turn mark stands inside the trace or the answer",
    "no_answer_mark": "the text of data.fields.answer_after is not in the answer column",
    "empty_answer": "nothing follows the trace",
    "unknown_label": "the label is neither harmful nor benign nor in data.fields.labels",
    "duplicate_id": "an earlier row has this id",
}
NUM_SHOWN = 5


class Rejected(Exception):
    """A row that is no example; the message is one of `REASONS`."""


@dataclass(frozen=True)
class _Columns:
    """The columns that a field map comes to on the rows at hand: response, or answer with a trace of its own or a constant."""

    prompt: str
    id: str | None
    response: str | None
    trace: str | None
    answer: str | None
    label: str | None


def parse_rows(
    rows: Sequence[tuple[int, Row]], fields: FieldsConfig, name: str, *, key: str, default_label: str
) -> tuple[list[Example], Counter[str]]:
    """Returns the examples among the rows and how many rows were rejected for which reason; the first few are shown.

    Args:
        rows: rows with their indices in the source.
        fields: which column holds what.
        name: source of the examples and prefix of their ids.
        key: config key of the field map, for messages.
        default_label: label of a row that has none.

    Raises:
        UserError: a mapped column is in no row, or no row is good.
    """
    names = _resolve(fields, columns([row for _, row in rows]), key)
    examples: list[Example] = []
    rejected: Counter[str] = Counter()
    shown: list[str] = []
    seen: set[str] = set()
    for index, row in rows:
        try:
            example = _example(index, row, names, fields, name, default_label)
            if example.id in seen:
                raise Rejected("duplicate_id")
        except Rejected as rejection:
            reason = str(rejection)
            if len(shown) < NUM_SHOWN:
                shown.append(f"row {index}: {reason} ({REASONS[reason]})")
            rejected[reason] += 1
            continue
        seen.add(example.id)
        examples.append(example)
    if not examples:
        raise UserError(
            f"{name}: none of {len(rows)} rows is an example ({count_reasons(rejected)}). " + "; ".join(shown) + "."
        )
    for line in shown:
        say(f"[yellow]{escape(name)}, {escape(line)}[/]")
    if rejected.total() > len(shown):
        say(f"[yellow]{escape(name)}: and {rejected.total() - len(shown)} more rows rejected[/]")
    return examples, rejected


def split_response(response: str) -> tuple[str, str]:
    """Splits a response into trace and answer, white space around either dropped.

    The opening mark may be missing (the chat template of the model that wrote it supplied it), an end-of-turn mark may stand
    at the end, and the trace may be empty.

    Raises:
        Rejected: it is not exactly one trace and one answer.
    """
    num_closes = response.count(CLOSE)
    if num_closes != 1:
        raise Rejected("several_traces" if num_closes else "no_close")
    trace, answer = response.strip().removeprefix(OPEN).split(CLOSE)
    return _checked(trace, answer)


def _checked(trace: str, answer: str) -> tuple[str, str]:
    trace, answer = trace.strip(), answer.strip()
    while answer.endswith(END_MARKS):
        answer = next(answer.removesuffix(mark) for mark in END_MARKS if answer.endswith(mark)).rstrip()
    if not answer:
        raise Rejected("empty_answer")
    if any(mark in text for mark in (OPEN, CLOSE) for text in (trace, answer)):
        raise Rejected("think_mark_inside")
    if any(mark in text for mark in END_MARKS for text in (trace, answer)):
        raise Rejected("end_mark_inside")
    return trace, answer


def _example(index: int, row: Row, names: _Columns, fields: FieldsConfig, source: str, default_label: str) -> Example:
    row_id = index if names.id is None else row.get(names.id)
    if row_id is None or row_id == "":
        raise Rejected("missing_field")
    prompt = _text(row, names.prompt).strip()
    if not prompt:
        raise Rejected("empty_prompt")
    if names.response is not None:
        trace, answer = split_response(_text(row, names.response))
    else:
        assert names.answer is not None
        trace = _text(row, names.trace) if names.trace is not None else fields.constant_trace or ""
        trace, answer = _checked(trace, _after(fields.answer_after, _text(row, names.answer), prompt))
    label = row.get(names.label) if names.label is not None else None
    if label is None or label == "":
        label = default_label
    label = fields.labels.get(str(label), str(label))
    if label not in (HARMFUL, BENIGN):
        raise Rejected("unknown_label")
    return Example(f"{source}-{row_id}", prompt, trace, answer, label, source)


def _text(row: Row, column: str) -> str:
    """Returns a field's text; an empty cell (None: csv and parquet know no other empty text) is the empty text."""
    if column not in row:
        raise Rejected("missing_field")
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Rejected("not_text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Rejected("not_unicode") from None
    return value


def _after(mark: str | None, text: str, prompt: str) -> str:
    """Returns what follows the mark; where the text repeats the prompt, the mark is looked for behind it."""
    if not mark:
        return text
    repeated = text.find(prompt)
    start = text.find(mark, repeated + len(prompt) if repeated >= 0 else 0)
    if start < 0:
        raise Rejected("no_answer_mark")
    return text[start + len(mark) :]


def _resolve(fields: FieldsConfig, present: list[str], key: str) -> _Columns:
    """Returns the columns that a field map means, given those that the rows have (see `FieldsConfig`)."""
    apart = {
        "trace": fields.trace,
        "answer": fields.answer,
        "constant_trace": fields.constant_trace,
        "answer_after": fields.answer_after,
    }
    split = [part for part, value in apart.items() if value is not None]
    if fields.response is not None and split:
        raise UserError(
            f"{key}.response={fields.response} and {key}.{split[0]} exclude each other: "
            f"set {key}.response=null to read trace and answer, or {key}.{split[0]}=null to read the response."
        )
    response = trace = answer = None
    if fields.response is not None or (not split and "response" in present):
        response = fields.response or "response"
    elif split or ("trace" in present and "answer" in present):
        answer = fields.answer or "answer"
        trace = None if fields.constant_trace is not None else fields.trace or "trace"
    else:
        raise UserError(
            f"No row has a column 'response', or 'trace' and 'answer'. Columns there are: {', '.join(present)}. "
            f"Set {key}.response=… (think marks inside), or {key}.trace=… and {key}.answer=…."
        )
    label = fields.label or ("label" if "label" in present else None)
    names = _Columns(fields.prompt or "prompt", fields.id, response, trace, answer, label)
    for part, column in asdict(names).items():
        if column is not None:
            check_column(column, f"{key}.{part}", present, f"set {key}.{part}=…")
    return names


def check_column(column: str, key: str, present: list[str], remedy: str) -> None:
    """Raises a UserError if no row has the column that the config key names."""
    if column not in present:
        raise UserError(f"{key}: no row has a column {column!r}. Columns there are: {', '.join(present)}; {remedy}.")


def count_reasons(rejected: Counter[str]) -> str:
    """Returns the reasons with their counts, the most frequent first."""
    return ", ".join(f"{reason} {count}" for reason, count in rejected.most_common())
