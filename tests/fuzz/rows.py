"""Files of rows: whatever is in one, it becomes examples that can be written and read again, or one message."""

from __future__ import annotations

import json

from dgr_lightning.config import FieldsConfig
from dgr_lightning.data.file_readers import read_rows
from dgr_lightning.data.row_parsing import parse_rows
from dgr_lightning.data.source_rows import is_refined
from dgr_lightning.errors import UserError
from dgr_lightning.example import LABELS, ExampleFile
from dgr_lightning.files import write_jsonl
from tests.fuzz.scratch import entries, scratch_folder

_FOLDER = scratch_folder()
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_ROW = {"id": "a", "prompt": "p", "trace": "t", "answer": "a", "label": "benign"}
_REFINED = _ROW | {"source": "s", "refined": True, "reason": None}

SEEDS = [
    b"\0" + json.dumps(_ROW).encode() + b"\n",
    b"\0" + json.dumps(_REFINED).encode() + b"\n",
    b'\0{"prompt": "p", "response": "<think>t</think>a", "score": NaN}\n\n{"prompt": "\\ud83d\\ude42"}\n',
    b"\1" + json.dumps([_ROW, _ROW]).encode(),
    b"\1" + json.dumps({key: [value] for key, value in _ROW.items()}).encode(),
    b"\1" + json.dumps(_ROW).encode() * 2,
    b'\1[{"prompt": -1e9, "trace": [[{"a": null}]], "answer": true}]',
    b'\2prompt,trace,answer\np,"t ""u"", v\nw",a\n,,\n',
    b"\3prompt\tresponse\np\t<think></think>a<|im_end|>\n",
    b"\4PAR1PAR1",
]


def check(data: bytes) -> None:
    """Reads bytes as a file of rows, its format by the first of them."""
    if not data:
        return
    path = _FOLDER / f"rows{SUFFIXES[data[0] % len(SUFFIXES)]}"
    path.write_bytes(data[1:])
    try:
        check_file(path)
    finally:
        path.unlink()
    assert not entries(_FOLDER), f"left behind: {entries(_FOLDER)}"


def check_file(path) -> None:  # type: ignore[no-untyped-def]
    """Reads a file of rows; where that gives examples, writes them and reads them again."""
    try:
        rows = read_rows(path)
        assert rows and all(isinstance(row, dict) for row in rows)
        refined = all(is_refined_row(row) for row in rows)
        examples, rejected = parse_rows(
            list(enumerate(rows)), FieldsConfig(), "fuzz", key="data.fields", default_label="harmful", refined=refined
        )
    except UserError as error:
        str(error).encode()
        return
    assert len(examples) + rejected.total() == len(rows)
    assert all(example.prompt and example.answer and example.label in LABELS for example in examples.values())
    assert len({example.id for example in examples.values()}) == len(examples)
    written = path.with_name("examples.jsonl")
    write_jsonl(written, examples.values())
    try:
        assert list(ExampleFile(written)) == list(examples.values()), "not what was written"
    finally:
        written.unlink()


def is_refined_row(row: dict) -> bool:  # type: ignore[type-arg]
    """Whether a row has the columns of a refined set."""
    from dgr_lightning.config import SourceConfig

    return is_refined(SourceConfig(), [row])
