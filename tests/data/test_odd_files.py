"""Files that somebody damaged, or made to do damage: one message each, before anything is loaded, and never an endless read."""

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from dgr_lightning.config import DataConfig, FieldsConfig
from dgr_lightning.data.file_readers import read_rows
from dgr_lightning.data.source_rows import chosen_rows, own_identity
from dgr_lightning.data.sources import load_examples
from dgr_lightning.errors import UserError
from dgr_lightning.hashes import file_hash
from tests.helpers.source_sets import source_set

DEEP = "[" * 200_000 + "]" * 200_000
LONG = "9" * 5_000
ROW = '{"prompt": "p", "response": "<think>t</think>a"}'


@contextmanager
def at_most(seconds: int):
    """Fails, instead of waiting for ever, where something reads what has no end."""

    def stop(*_):
        raise TimeoutError(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f'{ROW}\n{{"a": {DEEP}}}\n', r"a\.jsonl, line 2: lists and objects nested too deeply"),
        ("a.jsonl", f'{ROW}\n{{"a": {LONG}}}\n', r"a\.jsonl, line 2: a whole number of thousands of digits"),
        ("a.jsonl", f'{ROW}\n{{"a": -{LONG}}}\n', r"line 2: a whole number"),
        ("a.json", f'[{ROW}, {{"a": {DEEP}}}]', r"a\.json, in the value that begins in line 1: lists and objects nested"),
        ("a.json", f'{ROW}\n{{"a": {LONG}}}', r"a\.json, in the value that begins in line 2: a whole number"),
        ("a.json", DEEP, r"nested too deeply"),
        ("a.json", '{"a":' * 100_000, r"nested too deeply"),
        ("a.jsonl", "{", r"line 1: not JSON"),
        ("a.jsonl", "\0" * 100, r"line 1: a NUL character"),
        ("a.csv", "a,b\n1,2\n3,\0\n", r"a\.csv, line 3: a NUL character, as in UTF-16"),
        ("a.csv", "prompt,answer\np,a\n".encode("utf-16-le").decode("latin-1"), r"line 1: a NUL character, as in UTF-16"),
        ("a.json", "", r"contains no rows"),
        ("a.jsonl", " \n\n", r"contains no rows"),
        ("a.tsv", "", r"contains no rows"),
        ("a.parquet", "", r"not a readable parquet file \(\S"),
        ("a.parquet", "PAR1" + "\x01" * 100 + "PAR1", r"not a readable parquet file \(\S"),
        ("a.jsonl.gz", "", r"unknown format \.gz"),
        ("a.zip", "PK", r"unknown format \.zip"),
        ("a.arrow", "ARROW1", r"unknown format \.arrow"),
        ("rows", ROW, r"unknown format \(no suffix\)"),
    ],
    ids=range(20),
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with at_most(60), pytest.raises(UserError, match=message) as refused:
        read_rows(tmp_path / name)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000


def test_compressed_and_binary_content_under_a_texts_name_is_refused(tmp_path):
    for index, content in enumerate((b"\x1f\x8b\x08\x00\xff\xfe", b"PK\x03\x04\xff", "ROW".encode("utf-16"))):
        (tmp_path / f"{index}.jsonl").write_bytes(content)
        with pytest.raises(UserError, match=r"line 1, byte \d: not UTF-8"):
            read_rows(tmp_path / f"{index}.jsonl")


def test_parquet_whose_text_is_not_utf8_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": bad}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_rows(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"_data_files": 3}', '{"_data_files": [{"filename": "x"}]}', DEEP], ids=range(5)
)
def test_a_damaged_folder_of_datasets_is_refused(tmp_path, damage):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "state.json").write_text(damage)
    (tmp_path / "set" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="damaged folder of datasets"):
        read_rows(tmp_path / "set")
    (tmp_path / "set" / "dataset_dict.json").write_text(damage)
    with pytest.raises(UserError, match="contains several splits"):
        read_rows(tmp_path / "set")


@pytest.mark.parametrize("suffix", ["", ".jsonl"])
def test_a_device_or_a_pipe_is_refused_and_not_read(tmp_path, suffix):
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"zero{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with at_most(60):
            with pytest.raises(UserError, match="neither a file nor a folder"):
                read_rows(path)
            with pytest.raises(UserError, match=r"data\.path=.*neither a file nor a folder"):
                own_identity(DataConfig(path=str(path)), "data")


@pytest.mark.parametrize(
    "path",
    ["x" * 300 + ".jsonl", "x/" * 3000 + "a.jsonl", "~nobody-of-this-name/rows.jsonl", "a\0b.jsonl"],
    ids=["name", "path", "home", "NUL"],
)
def test_a_name_that_no_system_takes_is_no_such_file(path):
    with pytest.raises(UserError, match="no such file"):
        read_rows(Path(path))
    with pytest.raises(UserError, match="no such file"):
        own_identity(DataConfig(path=path), "data")


def test_a_file_that_vanished_or_may_not_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone: cannot be read \(No such file"):
        file_hash(tmp_path / "gone")


def write(tmp_path, rows: list[str]) -> DataConfig:
    data = source_set(tmp_path, [], fields=FieldsConfig(id="id"))
    Path(data.path).write_text("\n".join(rows))
    return data


GOOD = {"prompt": "p", "response": "<think>t</think>a", "label": "harmful"}


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"id": "\ud83d"}, "not_unicode"),
        ({"id": "x", "label": "\ud83d"}, "not_unicode"),
        ({"id": "x", "prompt": "\udc00"}, "not_unicode"),
        ({"id": ["x"]}, "not_text"),
        ({"id": {"a": 1}}, "not_text"),
        ({"id": "x", "label": ["harmful"]}, "not_text"),
        ({"id": "x", "response": 7}, "not_text"),
        ({"id": "x", "response": {"a": 1}}, "not_text"),
        ({"id": "x", "prompt": True}, "not_text"),
    ],
)
def test_a_row_with_a_value_that_nothing_can_be_called_by_is_rejected(tmp_path, odd, reason):
    rows = [json.dumps(GOOD | {"id": "good"}), json.dumps(GOOD | odd)]
    loaded = load_examples(write(tmp_path, rows), seed=1)
    assert [example.id for example in loaded.examples] == ["set-good"] and loaded.rejected == {reason: 1}


def test_a_condition_on_a_column_that_is_nested_deeply_is_answered(tmp_path):
    deep = "[" * 400 + "]" * 400
    data = write(tmp_path, [json.dumps(GOOD | {"id": "1"}), '{"prompt": ' + deep + "}"])
    data.keep = {"prompt": "other"}
    with pytest.raises(UserError, match=r"data\.keep\.prompt=other: no row has this value"):
        chosen_rows(data, "data")
