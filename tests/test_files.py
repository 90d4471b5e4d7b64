"""Files and folders are complete under their name, or absent."""

import math
from dataclasses import dataclass

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.files import (
    partial_of,
    put_in_place,
    read_json,
    read_jsonl,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
)
from dgr_lightning.writing import CannotWrite
from tests.helpers.full_disks import files_no_larger_than


def test_a_file_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "text.md"
    write_text(path, "old\n")
    write_text(path, "naïve ‖\r\n")
    assert path.read_bytes() == "naïve ‖\r\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_content(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": "a"}])

    def rows():
        yield {"id": "b"}
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [{"id": "a"}]


def test_json_is_indented_text_without_nan(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": [1.5, None], "text": "ü"})
    assert path.read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "text": "ü"\n}\n'
    assert read_json(path) == {"a": [1.5, None], "text": "ü"}
    for write in (write_json, lambda path, value: write_jsonl(path, [{"a": value}])):
        with pytest.raises(ValueError, match="JSON compliant"):
            write(tmp_path / "nan.json", math.nan)
    assert not (tmp_path / "nan.json").exists()


def test_rows_are_dicts_or_dataclasses_a_line_each(tmp_path):
    @dataclass
    class Row:
        id: str
        number: int

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, (row for row in (Row("a", 1), {"id": "line\u2028separator"})))
    assert path.read_text() == '{"id": "a", "number": 1}\n{"id": "line\u2028separator"}\n'
    assert list(read_jsonl(path)) == [{"id": "a", "number": 1}, {"id": "line\u2028separator"}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", r"line 3: not JSON \(.+ at column 2\)"),
        (b"[1]", "line 3: expected a JSON object, found list"),
        (b"[" * 200_000, r"line 3: not JSON \(lists and objects nested too deeply"),
        (b"9" * 5_000, r"line 3: not JSON \(a whole number of thousands of digits"),
        (b'{"a": "\xff"}', r"line 3: not JSON \(not UTF-8"),
    ],
    ids=range(5),
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": 1}\n\n' + line + b"\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl, {message}"):
        list(read_jsonl(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 200_000, b"9" * 5_000, b"\xff"], ids=range(5))
def test_a_damaged_record_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json: damaged \(.+\)\. Delete it"):
        read_json(tmp_path / "record.json")


def test_a_folder_has_its_name_only_once_it_is_complete(tmp_path):
    folder = tmp_path / "model"
    with whole_folder(folder) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "weights").write_text("first")
        assert partial == partial_of(folder) and not folder.exists()
    with pytest.raises(RuntimeError), whole_folder(folder) as partial:
        (partial / "weights").write_text("half")
        raise RuntimeError("stopped")
    assert (folder / "sub" / "weights").read_text() == "first" and not (folder / "weights").exists()
    with whole_folder(folder) as partial:
        assert list(partial.iterdir()) == []  # nothing of the one that was interrupted
        (partial / "weights").write_text("second")
    assert [path.name for path in folder.iterdir()] == ["weights"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_was_moved_away_when_a_process_died_is_cleared_up(tmp_path):
    old, folder = tmp_path / "model.old.partial", tmp_path / "model"
    old.mkdir()
    partial_of(folder).mkdir()
    put_in_place(partial_of(folder), folder)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["rows.jsonl", "model"])
def test_what_does_not_fit_is_deleted_again_and_what_was_there_stays(tmp_path, name):
    def write(size: int) -> None:
        if name == "rows.jsonl":
            return write_jsonl(tmp_path / name, ({"text": "x" * 1000} for _ in range(size // 1000)))
        with whole_folder(tmp_path / name) as partial:
            (partial / "weights").write_bytes(bytes(size))

    write(10_000)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CannotWrite, match=f"{tmp_path}/{name} could not be written"), files_no_larger_than(100_000):
        write(200_000)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_within_a_folder_is_named_as_it_will_be_called(tmp_path):
    fails = pytest.raises(CannotWrite, match=f"{tmp_path}/model/big.json could not be written")
    with fails, files_no_larger_than(1000), whole_folder(tmp_path / "model") as partial:
        write_json(partial / "big.json", "x" * 2000)
