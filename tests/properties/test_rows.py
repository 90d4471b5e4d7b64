"""Rows: any text is read or refused by one message, and what is written is read again as it was."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgr_lightning.data.file_readers import read_rows
from dgr_lightning.errors import UserError
from dgr_lightning.example import RefinedExample, read_refined
from dgr_lightning.files import read_jsonl, write_jsonl
from dgr_lightning.json_text import BadJson, parse_json
from tests.fuzz.rows import SEEDS, SUFFIXES, check, check_file
from tests.helpers.strategies import CHARACTERS, TEXTS, VALUES, damaged, encoded

COLUMNS = st.sampled_from(["id", "prompt", "response", "trace", "answer", "label", "source", "refined", "reason"])
TEXT = st.one_of(st.just("text"), st.sampled_from(["<think>t</think>a", "", " ", "harmful", "benign"]), TEXTS)
ROWS = st.lists(st.dictionaries(st.one_of(COLUMNS, TEXTS), st.one_of(TEXT, VALUES), max_size=9), max_size=4)


@given(st.sampled_from(range(len(SUFFIXES))), st.one_of(st.binary(max_size=60), TEXTS.map(str.encode)))
@settings(max_examples=300)
def test_any_bytes_are_rows_or_one_message(kind, content):
    check(bytes([kind]) + content)


@given(st.sampled_from(SEEDS).flatmap(damaged))
@settings(max_examples=300)
def test_a_damaged_file_is_rows_or_one_message(content):
    check(content)


@given(ROWS, st.booleans())
@settings(max_examples=200)
def test_any_json_is_examples_or_one_message(rows, as_lines):
    content = b"".join(encoded(row) + b"\n" for row in rows) if as_lines else encoded(rows)
    check(bytes([0 if as_lines else 1]) + content)


@given(ROWS)
def test_rows_are_read_as_they_were_written(tmp_path_factory, rows):
    plain = [{name: json.loads(json.dumps(cell)) for name, cell in row.items()} for row in rows]
    file = tmp_path_factory.getbasetemp() / "written.jsonl"
    file.write_bytes(b"".join(encoded(row) + b"\n" for row in rows))
    try:
        found = read_rows(file)
    except UserError:
        return
    undefined = [float("nan"), float("inf"), float("-inf")]

    def known(value):
        if isinstance(value, float) and (value != value or value in undefined):
            return None
        if isinstance(value, dict):
            return {name: known(cell) for name, cell in value.items()}
        return [known(cell) for cell in value] if isinstance(value, list) else value

    assert found == known(plain)


@given(st.lists(st.lists(st.text(CHARACTERS.filter(lambda c: c not in "\0"), max_size=9), min_size=2, max_size=2), min_size=1))
def test_separated_values_are_read_as_they_were_written(tmp_path_factory, cells):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["one", "two"], *cells])
    file = tmp_path_factory.getbasetemp() / "written.csv"
    file.write_bytes(buffer.getvalue().encode())
    assert read_rows(file) == [{"one": one or None, "two": two or None} for one, two in cells]


@given(
    st.lists(
        st.fixed_dictionaries({"prompt": TEXT, "trace": TEXT, "answer": st.one_of(TEXT, st.none())}), min_size=1, max_size=4
    )
)
def test_a_table_is_examples_or_one_message(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("table", numbered=True) / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    assert read_rows(file) == rows
    check_file(file)


REFINED = st.builds(RefinedExample, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans(), st.one_of(st.none(), TEXTS))


@given(st.lists(REFINED, max_size=4), st.data())
def test_a_refined_set_is_read_as_written_and_a_damaged_one_as_the_same_or_one_message(tmp_path_factory, examples, data):
    file = tmp_path_factory.getbasetemp() / "refined.jsonl"
    write_jsonl(file, examples)
    assert read_refined(file) == examples
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    try:
        found = read_refined(file)
    except UserError as error:
        assert str(file) in str(error)
        return
    assert all(isinstance(example, RefinedExample) for example in found)


@given(st.one_of(TEXTS, VALUES.map(lambda value: encoded(value).decode()), st.just("[" * 100_000), st.just("9" * 5000)))
@settings(max_examples=200)
def test_any_text_is_json_or_one_reason(text):
    try:
        value = parse_json(text)
    except BadJson as bad:
        assert str(bad) and len(str(bad)) < 300
        return
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("content", [b"", b"\n \n", b"{}\n"])
def test_lines_of_a_file_of_this_project(content, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(content)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{}] * (content == b"{}\n")
