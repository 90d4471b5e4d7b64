"""Reading files: every shape that public files come in, and the place of the error where one is broken."""

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from dgr_lightning.data.file_readers import columns, read_rows
from dgr_lightning.errors import UserError

ROWS = [{"prompt": "eins", "n": 1}, {"prompt": 'zwei, "drei"\nvier', "n": None}]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def test_json_lines(tmp_path):
    text = "\ufeff" + "\r\n".join(json.dumps(row) for row in ROWS) + "\n\n"
    assert read_rows(write(tmp_path / "a.jsonl", text)) == ROWS


def test_json_lines_keep_unescaped_line_separators_inside_strings(tmp_path):
    rows = [{"prompt": "a\u2028b\u0085c"}]
    path = write(tmp_path / "a.jsonl", json.dumps(rows[0], ensure_ascii=False))
    assert read_rows(path) == rows


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS[:1]) + "\n" + json.dumps(ROWS[1:]),
        json.dumps(ROWS[:1]) + json.dumps(ROWS[1:]),
        "\n".join(json.dumps(row) for row in ROWS),
        json.dumps({"prompt": [row["prompt"] for row in ROWS], "n": [row["n"] for row in ROWS]}),
        json.dumps(ROWS).replace("null", "NaN"),
    ],
    ids=["array", "indented", "arrays in turn", "arrays without a break", "lines", "object of lists", "NaN"],
)
def test_shapes_of_json(tmp_path, text):
    assert read_rows(write(tmp_path / "a.json", text)) == ROWS


def test_csv_with_quotes_line_breaks_empty_cells_and_long_cells(tmp_path):
    long = "x" * 200_000
    text = f'\ufeff,prompt,trace\r\n0,"a, ""b""\r\nc",\r\n\r\n1,d,{long}\r\n'
    rows = read_rows(write(tmp_path / "a.csv", text))
    assert rows == [
        {"Unnamed: 0": "0", "prompt": 'a, "b"\r\nc', "trace": None},
        {"Unnamed: 0": "1", "prompt": "d", "trace": long},
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", 'a;b\n"1;5";x, y\n', "semicolons"),
        ("a.csv", '"a";"b"\r\n"1;5";"x, y"\r\n', "semicolons"),
        ("a.csv", "a\tb\n1;5\tx, y\n", "tabs"),
        ("a.tsv", 'a,b\n1;5,"x, y"\n', "commas"),
        ("a.tsv", 'a;b\n"1;5";x, y\n', "semicolons"),
    ],
)
def test_other_separators_are_read_and_said(tmp_path, capsys, monkeypatch, name, text, said):
    monkeypatch.setattr("dgr_lightning.console.console", Console(width=300))
    assert read_rows(write(tmp_path / name, text)) == [{"a": "1;5", "b": "x, y"}]
    assert f"separated by {said}, and are read so" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a;b,c\n1,2\n", [{"a;b": "1", "c": "2"}]),
        ("a\n1;5\n", [{"a": "1;5"}]),
        ('"a;b"\n1\n', [{"a;b": "1"}]),
    ],
)
def test_a_header_with_commas_or_of_one_column_is_read_as_csv(tmp_path, capsys, text, rows):
    assert read_rows(write(tmp_path / "a.csv", text)) == rows
    assert capsys.readouterr().out == ""


def test_tsv(tmp_path):
    assert read_rows(write(tmp_path / "a.tsv", "a\tb\n1,5\t\n")) == [{"a": "1,5", "b": None}]


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": ["x", None], "b": [float("nan"), 2.0], "c": [["p"], []]}), tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == [{"a": "x", "b": None, "c": ["p"]}, {"a": None, "b": 2.0, "c": []}]


def test_folder_saved_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "one")
    assert read_rows(tmp_path / "one") == ROWS
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "several")
    with pytest.raises(UserError, match=r"several splits.*several/train"):
        read_rows(tmp_path / "several")


def test_columns_of_ragged_rows():
    assert columns([{"a": 1}, {"b": 2, "a": 3}]) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n{"a": 3}\n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"a": 1}\n\n[1]\n', r"line 3: expected a JSON object, found a list"),
        ("a.jsonl", b'{"a": "x"}\n{"a": "\xff"}\n', r"line 2, byte 18: not UTF-8"),
        ("a.json", '[{"a": "ü"},\n {"a" 2}]'.encode(), r"line 2, column 7 \(byte 20\).*begins at byte 0"),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}', r"line 2.*begins at byte 11"),
        ("a.json", b'[{"a": 1}, 7]', r"row 1: expected a JSON object, found a number"),
        ("a.json", b'{"a": [1, 2], "b": [1]}', r"must have equal lengths; found a 2, b 1"),
        ("a.json", b"[]", r"no rows"),
        ("a.csv", b"a,b\n", r"no rows"),
        ("a.csv", b"", r"no rows"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"line 3: 3 cells under a header of 2"),
        ("a.csv", b"a,b\n1,2\n1\n", r"line 3: 1 cells under a header of 2"),
        ("a.csv", b'a,b\n1,2\n"open,3\n4,5\n', r"a\.csv, line \d: unexpected end of data"),
        ("a.csv", b"a,a\n1,2\n", r"duplicate column names: a"),
        ("a.parquet", b"not parquet", r"not a readable parquet file"),
        ("a.xlsx", b"", r"unknown format \.xlsx\. Known formats: \.jsonl"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name)


def test_missing_file_and_foreign_folder(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.jsonl: no such file"):
        read_rows(tmp_path / "nothing.jsonl")
    with pytest.raises(UserError, match=r"not a folder saved by datasets"):
        read_rows(tmp_path)


REAL = {
    "gsm8k/test.jsonl": 1319,
    "math500/test.jsonl": 500,
    "aime24/test.jsonl": 30,
    "strongreject/strongreject_dataset.csv": 313,
    "advbench/advbench.csv": 520,
    "jailbreakbench/jailbreakbench.csv": 100,
    "harmbench/harmbench_behaviors_text_all.csv": 400,
    "xstest/xstest_prompts.csv": 450,
    "xstest/xstest_v2_completions_gpt4_gpteval.csv": 450,
    "star1/STAR-1.json": 1000,
    "lrm_safety_study_nocot/sft_train_nocot.json": 1000,
}


@pytest.mark.parametrize(("file", "count"), REAL.items())
def test_real_files(file, count):
    if "DGR_SHARED" not in os.environ:
        pytest.skip("DGR_SHARED is unset: no real data")
    rows = read_rows(Path(os.environ["DGR_SHARED"], "data", file))
    assert len(rows) == count
    assert all(row.keys() == rows[0].keys() for row in rows)
