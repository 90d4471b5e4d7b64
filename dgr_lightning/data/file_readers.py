"""Reads rows from local files: jsonl, json, csv, tsv, parquet, folders saved by `datasets`, and what a run trained on.

Public files bend their formats: BeaverTails-style JSON is one object of lists or several concatenated arrays, a `.json` file
often holds JSON lines, and spreadsheets leave cells empty. All of them become plain rows here. A broken file is refused with
the line or byte of the error, never read in part.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from dgr_lightning.console import say
from dgr_lightning.errors import UserError, one_line
from dgr_lightning.files import check_plain, exists
from dgr_lightning.json_text import why_bad

Row = dict[str, Any]

FORMATS = (
    ".jsonl, .json, .csv, .tsv, .parquet, a folder of parquet files or one saved by datasets.save_to_disk, or a run's directory"
)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_REFINED = "refined.jsonl"  # what a run trained on, in its directory


def rows_place(path: Path) -> Path:
    """Returns the file or folder that holds the rows: of a run's directory its refined set, of a data set's folder its shards.

    What lies beside them (weights, a card) is neither read nor part of a content hash.
    """
    if (path / _REFINED).is_file():
        return path / _REFINED
    if path.is_dir() and not (path / "state.json").exists() and any((path / "data").glob("*.parquet")):
        return path / "data"
    return path


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a local file in file order; empty cells and NaN become None.

    Args:
        path: its suffix selects the format (`FORMATS`). JSON may be an array of objects, one object of lists of equal length,
            several concatenated arrays, or concatenated objects.

    Raises:
        UserError: the file is missing, of an unknown format, empty or broken; the message names the file and the line or byte.
    """
    if not exists(path):
        raise UserError(f"{path}: no such file. Name a file or folder of one of these formats: {FORMATS}.")
    path = rows_place(path)
    check_plain(path, str(path))
    try:
        rows = _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or one_line(error)}).") from error
    if not rows:
        raise UserError(f"{path}: contains no rows.")
    return rows


def _read(path: Path) -> list[Row]:
    if path.is_dir():
        return _read_shards(path) if any(path.glob("*.parquet")) else _read_saved_dataset(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown format {path.suffix or '(no suffix)'}. Known formats: {FORMATS}.")
    return reader(path)


def columns(rows: list[Row]) -> list[str]:
    """Returns the names of the columns that appear in any row, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _read_text(path: Path) -> str:
    """Returns the file's text without a byte order mark."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}, byte {error.start}: not UTF-8. Save the file as UTF-8.") from error
    if "\0" in text:
        place = f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}"
        raise UserError(f"{path}, {place}: a NUL character, as in UTF-16 or in a file of bytes. Save the file as UTF-8 text.")
    return text


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    # Not splitlines(), which also splits at U+2028 and the like: JSON strings may contain them unescaped.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_undefined)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}).") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: {why_bad(error)}.") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, found {_kind(row)}.")
        rows.append(row)
    return rows


def _read_json(path: Path) -> list[Row]:
    text = _read_text(path)
    decoder = json.JSONDecoder(parse_constant=_undefined)
    values: list[Any] = []
    position = _skip_space(text, 0)
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            byte = len(text[: error.pos].encode())
            raise UserError(
                f"{path}, line {error.lineno}, column {error.colno} (byte {byte}): not JSON ({error.msg}); "
                f"the broken value begins at byte {len(text[:position].encode())}."
            ) from error
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, position) + 1
            raise UserError(f"{path}, in the value that begins in line {line}: {why_bad(error)}.") from error
        values.append(value)
        position = _skip_space(text, position)
    if len(values) == 1 and _is_table(values[0]):
        return _rows_of_lists(values[0], path)
    rows = [row for value in values for row in (value if isinstance(value, list) else [value])]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {index}: expected a JSON object, found {_kind(row)}.")
    return rows


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _is_table(value: Any) -> bool:
    """Whether a JSON value is an object of lists, one per column."""
    return isinstance(value, dict) and bool(value) and all(isinstance(column, list) for column in value.values())


def _rows_of_lists(table: dict[str, list[Any]], path: Path) -> list[Row]:
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{path}: the lists of a JSON object of lists must have equal lengths; found {counts}.")
    return [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]


def _undefined(_: str) -> None:
    """Reads NaN and Infinity, which are not JSON but which many tools write, as None."""


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")


def _read_separated(path: Path, usual: str) -> list[Row]:
    """Reads rows of cells; what separates them is the format's usual character, or the one that the header goes by."""
    text = _read_text(path)
    limit = csv.field_size_limit(sys.maxsize)  # The default of 128 KiB is shorter than some traces.
    try:
        delimiter = _delimiter(text, usual)
        if delimiter != usual:
            say(f"{escape(str(path))}: its columns are separated by {_SEPARATORS[delimiter]}, and are read so")
        # strict: otherwise a stray quote swallows all rows up to the next quote.
        reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
        header = [name.strip() or f"Unnamed: {index}" for index, name in enumerate(next(reader, []))]
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise UserError(f"{path}, line 1: duplicate column names: {', '.join(repeated)}.")
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(f"{path}, line {reader.line_num}: {len(cells)} cells under a header of {len(header)}.")
            rows.append({name: cell or None for name, cell in zip(header, cells, strict=True)})
        return rows
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _delimiter(text: str, usual: str) -> str:
    """Returns what separates the cells: another character than the usual one where the header is one cell with that only.

    Spreadsheets of countries that write 0,5 for 0.5 save semicolons as CSV. A header whose only cell holds no other separator
    is a single column.
    """
    lines = _lines(text)

    def num_columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader(lines, delimiter=delimiter, strict=True), []))
        except csv.Error:
            return 0

    counts = {delimiter: num_columns(delimiter) for delimiter in (usual, *_SEPARATORS)}
    return usual if counts[usual] > 1 else max(counts, key=lambda delimiter: counts[delimiter])


def _lines(text: str) -> list[str]:
    """Splits text at line feeds only, keeping them; carriage returns are left to csv."""
    return [line + "\n" for line in text.split("\n")]


def _read_csv(path: Path) -> list[Row]:
    return _read_separated(path, ",")


def _read_tsv(path: Path) -> list[Row]:
    return _read_separated(path, "\t")


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    # A ValueError where a column of text is not UTF-8 or a time is out of range.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, TypeError) as error:
        cause = one_line(str(error).partition("\n")[0]) or type(error).__name__
        raise UserError(f"{path}: not a readable parquet file ({cause}).") from error
    return _without_nan(rows)


def _read_shards(folder: Path) -> list[Row]:
    """Reads the parquet files of one split, named as on the hub: <split>-<number>-of-<number>.parquet."""
    files = sorted(folder.glob("*.parquet"))
    splits = sorted({file.stem.partition("-")[0] for file in files})
    if len(splits) > 1:
        raise UserError(f"{folder}: contains several splits ({', '.join(splits)}). Name a file, or a folder with one of them.")
    return [row for file in files for row in _read_parquet(file)]


def _read_saved_dataset(path: Path) -> list[Row]:
    if (path / "dataset_dict.json").exists():
        folders = ", ".join(sorted(str(folder.parent) for folder in path.glob("*/state.json")))
        raise UserError(f"{path}: contains several splits. Name one of them: {folders or 'none is complete'}.")
    if not (path / "state.json").exists():
        raise UserError(f"{path}: not a folder saved by datasets.save_to_disk. Known formats: {FORMATS}.")
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
        assert isinstance(dataset, datasets.Dataset)
        rows = dataset.to_list()
    except Exception as error:  # of a damaged folder: whatever json, datasets, fsspec and pyarrow raise
        cause = one_line(str(error).partition("\n")[0], 200) or type(error).__name__
        raise UserError(f"{path}: a damaged folder of datasets.save_to_disk ({cause}). Save it again.") from error
    return _without_nan(rows)


def _without_nan(rows: list[Row]) -> list[Row]:
    """Replaces NaN, which stands for an empty cell in a numeric column, by None."""
    return [{name: None if isinstance(cell, float) and cell != cell else cell for name, cell in row.items()} for row in rows]


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
