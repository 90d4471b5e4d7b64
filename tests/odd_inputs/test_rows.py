"""Odd files of rows, of every format: each ends with one message that names the file, or is read for what it holds."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from tests.helpers.odd_inputs import ANSWER, GOOD_ROW, PROMPT, TRACE

pytestmark = pytest.mark.slow  # a run of the command a row, some hundred rows

GOOD = json.dumps(GOOD_ROW)
DEEP = "[" * 100_000 + "]" * 100_000
DEEP_OBJECT = '{"a":' * 50_000 + "1" + "}" * 50_000
DIGITS = "9" * 5000
HALF = '"\\ud800"'


def lines(*rows):
    return "\n".join(rows) + "\n"


def row(**changes):
    return json.dumps(GOOD_ROW | changes)


BROKEN: dict[str, bytes | str] = {
    # JSON lines
    "empty.jsonl": "",
    "white-space.jsonl": " \n\t\n\n",
    "bom-alone.jsonl": b"\xef\xbb\xbf",
    "utf-16.jsonl": GOOD.encode("utf-16"),
    "utf-32.jsonl": GOOD.encode("utf-32"),
    "latin-1.jsonl": '{"prompt": "größe"}'.encode("latin-1"),
    "nul.jsonl": b"\0\0\0\0",
    "nul-after-a-row.jsonl": GOOD.encode() + b"\n\0\n",
    "random-bytes.jsonl": bytes(range(256)) * 8,
    "truncated.jsonl": lines(GOOD, GOOD[:30]).rstrip("\n"),
    "torn-character.jsonl": GOOD.encode() + b'\n{"prompt": "\xc3',
    "lists.jsonl": lines('["a"]'),
    "strings.jsonl": lines('"a"'),
    "null.jsonl": lines("null"),
    "numbers.jsonl": lines("1"),
    "booleans.jsonl": lines("true"),
    "deep.jsonl": lines(GOOD, DEEP),
    "deep-object.jsonl": lines(DEEP_OBJECT),
    "deep-in-a-cell.jsonl": lines('{"prompt": ' + DEEP + "}"),
    "digits.jsonl": lines('{"prompt": ' + DIGITS + "}"),
    "digits-after-a-row.jsonl": lines(GOOD, '{"id": -' + DIGITS + "}"),
    "single-quotes.jsonl": lines("{'prompt': 'p'}"),
    "comma-at-the-end.jsonl": lines('{"prompt": "p",}'),
    "two-in-a-line.jsonl": lines(GOOD + GOOD),
    "comment.jsonl": lines("# rows", GOOD),
    "mac-line-ends.jsonl": GOOD + "\r" + GOOD,
    "control-character.jsonl": lines('{"prompt": "a\x01b"}'),
    "bad-escape.jsonl": lines('{"prompt": "\\x41"}'),
    "empty-objects.jsonl": lines("{}", "{}"),
    "empty-keys.jsonl": lines('{"": ""}'),
    "nulls.jsonl": lines('{"prompt": null, "trace": null, "answer": null}'),
    "numbers-for-text.jsonl": lines('{"prompt": 1, "trace": 2, "answer": 3}'),
    "lists-for-text.jsonl": lines('{"prompt": ["p"], "trace": ["t"], "answer": ["a"]}'),
    "messages.jsonl": lines('{"messages": [{"role": "user", "content": "p"}]}'),
    "other-columns.jsonl": lines('{"question": "p", "solution": "a"}'),
    "columns-with-escapes.jsonl": lines('{"\\u001b]0;title\\u0007": "p", "\\r": "a"}'),
    "columns-with-markup.jsonl": lines('{"[bold]": "p", "[/]": "a"}'),
    "column-of-100,000-letters.jsonl": lines(json.dumps({"a" * 100_000: "p"})),
    "ten-thousand-columns.jsonl": lines(json.dumps({f"column-{n}": "x" for n in range(10_000)})),
    "half-in-every-prompt.jsonl": lines('{"prompt": ' + HALF + ', "trace": "t", "answer": "a"}'),
    "half-in-a-key.jsonl": lines("{" + HALF + ": 1}"),
    "half-in-a-label.jsonl": lines(GOOD[:-1] + ', "label": ' + HALF + "}"),
    "labels-unknown.jsonl": lines(row(label="evil")),
    "labels-with-escapes.jsonl": lines(row(label="\x1b[31mharmful")),
    "labels-of-numbers.jsonl": lines(row(label=3)),
    "labels-all-benign.jsonl": lines(row(label="benign")),
    "marks-everywhere.jsonl": lines(row(trace="<think><think>", answer="</think>")),
    "response-without-a-close.jsonl": lines('{"prompt": "p", "response": "a"}'),
    "answer-of-end-marks.jsonl": lines(row(answer="<|im_end|><|im_end|>")),
    "prompt-of-white-space.jsonl": lines(row(prompt=" \u2003\n")),
    "answer-of-40,000-words.jsonl": lines(row(answer="no . " * 20_000)),
    # JSON
    "empty.json": "",
    "white-space.json": "  \n ",
    "number.json": "3",
    "string.json": '"rows"',
    "null.json": "null",
    "nan.json": "NaN",
    "empty-list.json": "[]",
    "empty-object.json": "{}",
    "list-of-lists.json": "[[1, 2], [3, 4]]",
    "list-of-numbers.json": "[1, 2]",
    "truncated-list.json": "[" + GOOD + ",",
    "truncated-number.json": "[" + GOOD + ", -",
    "no-comma.json": "[" + GOOD + GOOD + "]",
    "rubbish-at-the-end.json": "[" + GOOD + "] and so on",
    "uneven-lists.json": '{"prompt": ["a", "b"], "answer": ["c"]}',
    "empty-lists.json": '{"prompt": [], "answer": []}',
    "deep.json": DEEP,
    "deep-object.json": DEEP_OBJECT,
    "deep-in-a-row.json": '[{"a": ' + DEEP + "}]",
    "digits.json": '[{"a": ' + DIGITS + "}]",
    "half.json": '[{"prompt": ' + HALF + ', "trace": "t", "answer": "a"}]',
    "half-as-a-column.json": '{"prompt": ["p"], ' + HALF + ': ["t"]}',
    "utf-16.json": ("[" + GOOD + "]").encode("utf-16"),
    "data-inside.json": json.dumps({"data": [GOOD_ROW], "version": 1}),
    "a-mapping-of-lists-of-rows.json": json.dumps({"train": [GOOD_ROW], "test": [GOOD_ROW]}),
    # separated values
    "empty.csv": "",
    "header-alone.csv": "prompt,trace,answer\n",
    "white-space.csv": " \n \n",
    "too-many-cells.csv": "prompt,trace,answer\np,t,a,b\n",
    "too-few-cells.csv": "prompt,trace,answer\np,t\n",
    "same-names.csv": "prompt,prompt,answer\na,b,c\n",
    "same-names-with-escapes.csv": "\x1b[2J,\x1b[2J\na,b\n",
    "stray-quote.csv": 'prompt,trace,answer\n"p"x,t,a\n',
    "open-quote.csv": 'prompt,trace,answer\n"p,t,a\n' * 3,
    "nul.csv": b"prompt,trace,answer\np\0,t,a\n\0",
    "nul-header.csv": b"\0prompt\0\n",
    "utf-16.csv": "prompt,trace,answer\np,t,a\n".encode("utf-16"),
    "binary.csv": bytes(range(256)),
    "carriage-returns.csv": "prompt,trace,answer\rp,t,a\r",
    "no-names.csv": ",,\np,t,a\n",
    "empty-cells.csv": "prompt,trace,answer\n,,\n",
    "ten-thousand-columns.csv": ",".join(f"c{n}" for n in range(10_000)) + "\n",
    "index-column.csv": ",prompt\n0,p\n",
    "long-cell-without-an-end.csv": 'prompt,trace,answer\n"' + "x" * 300_000,
    # other suffixes
    "rows.txt": GOOD,
    "rows": GOOD,
    "rows.jsonl.gz": b"\x1f\x8b\x08\0",
    "rows.xlsx": b"PK\x03\x04",
    "rows.arrow": b"ARROW1\0\0",
    "rows.pkl": b"\x80\x04N.",
    # parquet
    "empty.parquet": "",
    "magic-alone.parquet": b"PAR1",
    "magic-twice.parquet": b"PAR1PAR1",
    "lying-footer.parquet": b"PAR1" + b"\xff\xff\xff\x7fPAR1",
    "negative-footer.parquet": b"PAR1" + b"\xff\xff\xff\xffPAR1",
    "rubbish-footer.parquet": b"PAR1" + b"x" * 64 + b"\x40\0\0\0PAR1",
    "text.parquet": GOOD,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_rows_is_one_message(name, world, ends):
    path = world.write(name, BROKEN[name])
    # One that is read and is too long for the model is shown first.
    places = ("cwd/runs",) if name == "answer-of-40,000-words.jsonl" else ()
    outcome = ends("refine", ["plan=true", f"data.path={path}"], places=places)
    assert len(outcome.err.splitlines()) <= 12


def table(world, name, columns):
    path = world.inputs / name
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def truncated(world):
    path = table(world, "rows.parquet", {key: [value] * 50 for key, value in GOOD_ROW.items()})
    path.write_bytes(path.read_bytes()[:-40])
    return path


def damaged(world):
    path = table(world, "rows.parquet", {key: [value] * 50 for key, value in GOOD_ROW.items()})
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    return path


def no_rows(world):
    return table(world, "rows.parquet", {"prompt": pyarrow.array([], pyarrow.string())})


def no_columns(world):
    return table(world, "rows.parquet", {})


def structs(world):
    return table(world, "rows.parquet", {"prompt": [{"a": {"b": [1]}}], "trace": [[1]], "answer": [None]})


def same_columns(world):
    path = world.inputs / "rows.parquet"
    schema = pyarrow.schema([("prompt", pyarrow.string()), ("prompt", pyarrow.string())])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, schema=schema), path)
    return path


def binary(world):
    return table(world, "rows.parquet", {key: [b"\xff\xfe"] for key in GOOD_ROW})


def dates(world):
    far = pyarrow.array([2**62], pyarrow.timestamp("us"))  # a year that Python's dates do not have
    return table(world, "rows.parquet", {"prompt": far, "trace": ["t"], "answer": ["a"]})


def invalid_text(world):
    raw = pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe"))
    return table(world, "rows.parquet", {"prompt": raw, "trace": ["t"], "answer": ["a"]})


def two_splits(world):
    for split in ("train", "test"):
        table(world, f"{split}-00000-of-00001.parquet", {"prompt": ["p"]})
    return world.inputs


def folder_of_a_broken_shard(world):
    table(world, "train-00000-of-00002.parquet", {"prompt": ["p"]})
    world.write("train-00001-of-00002.parquet", b"PAR1")
    return world.inputs


def folder_named_parquet(world):
    (world.inputs / "rows.parquet").mkdir()
    return world.inputs


def folder_named_jsonl(world):
    (world.inputs / "rows.jsonl").mkdir()
    return world.inputs / "rows.jsonl"


def saved(world, **files):
    for name, content in files.items():
        world.write(name.replace("_json", ".json").replace("_arrow", ".arrow"), content)
    return world.inputs


def run_with_a_truncated_set(world):
    world.write("refined.jsonl", GOOD + "\n" + GOOD[:20])
    return world.inputs


def run_with_an_empty_set(world):
    world.write("refined.jsonl", "")
    return world.inputs


def run_with_a_folder_for_a_set(world):
    (world.inputs / "refined.jsonl").mkdir()
    return world.inputs


def refined_of_wrong_types(world):
    types = {"id": None, "label": [], "source": {}, "refined": 3, "reason": [1]}
    return world.rows(GOOD_ROW | types)


FOLDERS = {
    "truncated parquet": truncated,
    "damaged parquet": damaged,
    "parquet without rows": no_rows,
    "parquet without columns": no_columns,
    "parquet of structs": structs,
    "parquet with a column twice": same_columns,
    "parquet of bytes": binary,
    "parquet of dates out of range": dates,
    "parquet of text that is none": invalid_text,
    "folder of two splits": two_splits,
    "folder with a broken shard": folder_of_a_broken_shard,
    "folder with a folder named parquet": folder_named_parquet,
    "folder named jsonl": folder_named_jsonl,
    "saved set: state that is not JSON": lambda world: saved(world, state_json="{"),
    "saved set: state of a list": lambda world: saved(world, state_json="[]", dataset_info_json="{}"),
    "saved set: state without its files": lambda world: saved(world, state_json='{"_data_files": []}', dataset_info_json="{}"),
    "saved set: files that are not there": lambda world: saved(
        world, state_json='{"_data_files": [{"filename": "a.arrow"}], "_fingerprint": "x"}', dataset_info_json="{}"
    ),
    "saved set: files elsewhere": lambda world: saved(
        world, state_json='{"_data_files": [{"filename": "../../x.arrow"}], "_fingerprint": "x"}', dataset_info_json="{}"
    ),
    "saved set: broken arrow": lambda world: saved(
        world,
        state_json='{"_data_files": [{"filename": "a.arrow"}], "_fingerprint": "x", "_format_type": null, '
        '"_format_kwargs": {}, "_format_columns": null, "_output_all_columns": false, "_split": null}',
        dataset_info_json="{}",
        a_arrow=b"ARROW1\0\0rubbish",
    ),
    "saved sets: a list of splits that is none": lambda world: saved(world, dataset_dict_json='{"splits": 3}'),
    "saved sets: no splits": lambda world: saved(world, dataset_dict_json="{}"),
    "saved sets: not JSON": lambda world: saved(world, dataset_dict_json="\xff{"),
    "saved sets: two": lambda world: saved(world, dataset_dict_json='{"splits": ["train", "\\u001b[2J"]}'),
    "run with a truncated set": run_with_a_truncated_set,
    "run with an empty set": run_with_an_empty_set,
    "run with a folder for a set": run_with_a_folder_for_a_set,
    "refined set of wrong types": refined_of_wrong_types,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_broken_table_or_folder_of_rows_is_one_message(name, world, ends):
    ends("refine", ["plan=true", f"data.path={FOLDERS[name](world)}"], places=())


FINE: dict[str, bytes | str] = {
    "bom.jsonl": b"\xef\xbb\xbf" + GOOD.encode(),
    "windows-line-ends.jsonl": GOOD + "\r\n" + row(prompt="q") + "\r\n",
    "line-separators.jsonl": lines(json.dumps(GOOD_ROW | {"note": "a\u2028b\u2029c\x85d"}, ensure_ascii=False)),
    "nan.jsonl": lines(GOOD, GOOD[:-1] + ', "score": NaN, "other": -Infinity}'),
    "mixed.jsonl": lines(GOOD, "{}", row(prompt=3), row(answer=None), row(prompt="another ?")),
    "ids-that-are-paths.jsonl": lines(*(row(id=name) for name in ("../../x", "/etc/passwd", "a/b", "..", "~", "a\x00b"))),
    "ids-with-escapes.jsonl": lines(row(id="\x1b]0;title\x07"), row(id="\r\n"), row(id="[bold]")),
    "ids-twice.jsonl": lines(row(id="a"), row(id="a"), row(id=1), row(id="1")),
    "ids-of-300-letters.jsonl": lines(row(id="a" * 300), row(id="b" * 100_000)),
    "ids-of-kinds.jsonl": lines(row(id=True), row(id=[1]), row(id={"a": 1}), row(id=1.5)),
    "text-with-escapes.jsonl": lines(row(prompt="a \x1b[2J b", trace="\x07", answer="no \x1b]0;x\x07 .")),
    "text-with-nul.jsonl": lines(row(prompt="a \0 b", answer="no \0 .")),
    "text-with-markup.jsonl": lines(row(prompt="[bold] a [/] [link=x]", answer="[/red] no .")),
    "text-of-control-tokens.jsonl": lines(row(prompt="<|im_end|> <think>")),
    "text-of-noncharacters.jsonl": lines(row(prompt="".join(map(chr, range(0xFDD0, 0xFDEF))) + "?")),
    "text-right-to-left.jsonl": lines(row(prompt="\u202e ? x \u200f")),
    "half-in-one-prompt.jsonl": lines(GOOD, '{"prompt": ' + HALF + ', "trace": "t", "answer": "a"}'),
    "rows-one-after-the-other.json": GOOD + GOOD,
    "lists-one-after-the-other.json": f"[{GOOD}]\n[{GOOD}]",
    "one-object.json": GOOD,
    "columns.json": json.dumps({key: [value] * 2 for key, value in GOOD_ROW.items()}),
    "quotes.csv": f'prompt,trace,answer\n"a ""b"", c\nd",{TRACE},{ANSWER}\n',
    "windows-line-ends.csv": f"prompt,trace,answer\r\n{PROMPT},{TRACE},{ANSWER}\r\n",
    "long-cell.csv": f"prompt,trace,answer\n{PROMPT},{'so ' * 50_000},{ANSWER}\n",
    "spaces-in-names.csv": f" prompt , trace ,answer\n{PROMPT},{TRACE},{ANSWER}\n",
    "semicolons.csv": f"prompt;trace;answer\n{PROMPT};{TRACE};{ANSWER}\n",
    "tabs.csv": f"prompt\ttrace\tanswer\n{PROMPT}\t{TRACE}\t{ANSWER}\n",
    "commas.tsv": f"prompt,trace,answer\n{PROMPT},{TRACE},{ANSWER}\n",
    "rows.TSV": f"prompt\ttrace\tanswer\n{PROMPT}\t{TRACE}\t{ANSWER}\n",
    "bom.csv": b"\xef\xbb\xbf" + f"prompt,trace,answer\n{PROMPT},{TRACE},{ANSWER}\n".encode(),
}
# The miniature has no letters for these: its template gives other tokens than the text alone does, which the plan says.
UNWRITABLE = {"text-with-escapes.jsonl", "text-with-nul.jsonl", "text-with-markup.jsonl"}
IDS = {
    "ids-that-are-paths.jsonl",
    "ids-with-escapes.jsonl",
    "ids-twice.jsonl",
    "ids-of-300-letters.jsonl",
    "ids-of-kinds.jsonl",
}


@pytest.mark.parametrize("name", FINE)
def test_an_odd_file_of_rows_that_is_fine(name, world, ends):
    path = world.write(name, FINE[name])
    more = ["data.fields.id=id"] if name in IDS else []
    ends("refine", ["plan=true", f"data.path={path}", *more], 2 if name in UNWRITABLE else 0)


# What is said of good rows, and does not fit them.
SAID = {
    "a column that is not there": ["data.fields.prompt=question"],
    "a column of an empty name": ["data.fields.prompt=''"],
    "a column with escapes": ["data.fields.prompt=\x1b[2J"],
    "a label column that is not there": ["data.fields.label=category"],
    "an id column that is not there": ["data.fields.id=uuid"],
    "a mark that no answer has": ["data.fields.answer_after='####'"],
    "a mark of an escape": ["data.fields.answer_after=\x1b"],
    "response and trace": ["data.fields.response=answer", "data.fields.trace=trace"],
    "a trace that closes": ["data.fields.constant_trace='</think>'"],
    "a label for labels that is none": ["data.fields.labels={a:b}"],
    "a condition on nothing": ["data.keep={nothing:x}"],
    "a condition that no row fulfils": ["data.keep={prompt:x}"],
    "a condition with escapes": ['data.keep={prompt:"\x1b[2J"}'],
    "benign rows that are not there": ["data.benign_ratio=0.5"],
    "benign rows of a missing file": ["data.benign_ratio=0.5", "data.benign.path=/not/there.jsonl"],
    "a label list that is not there": ["data.label_list=../../star1-1"],
    "a label list of nothing": ["data.label_list=''"],
    "rows that do not fit": ["sft.max_length=4"],
    "a name of 300 letters": ["data.name=" + "n" * 300],
    "a name that is a path": ["data.name='../../x'"],
    "a name with escapes": ["data.name='\x1b]0;x\x07'"],
    "a part without rows of its kind": ["data.mix=[{data:local,path:ROWS,share:1,kind:benign}]", "data.fields.label=null"],
    "parts with more than there is": [
        "data.mix=[{data:local,path:ROWS,share:.5},{data:local,path:ROWS,share:.5}]",
        "data.limit=9",
    ],
    "a part whose columns are not there": ["data.mix=[{data:local,path:ROWS,share:1,fields:{prompt:question}}]"],
    "a part whose rows are broken": ["data.mix=[{data:local,path:BROKEN,share:1}]"],
    "a part of a folder": ["data.mix=[{data:local,path:FOLDER,share:1}]"],
    "shares that are tiny": ["data.mix=[{data:local,path:ROWS,share:1e-300},{data:local,path:ROWS,share:1}]"],
}
# An empty name is no name: the column's usual one. A part may be so small that it gives nothing.
SAID_WELL = {"a name that is a path", "a column of an empty name", "shares that are tiny"}


@pytest.mark.parametrize("name", SAID)
def test_what_does_not_fit_the_rows_is_one_message(name, world, ends):
    places = {"ROWS": world.rows(GOOD_ROW | {"label": "harmful"}), "BROKEN": world.write("b.json", "["), "FOLDER": world.inputs}
    overrides = SAID[name]
    for word, path in places.items():
        overrides = [override.replace(word, str(path)) for override in overrides]
    if "data.mix" not in overrides[0]:
        overrides = [f"data.path={places['ROWS']}", *overrides]
    ends("refine", ["plan=true", *overrides], 0 if name in SAID_WELL else 2)


def test_a_limit_beyond_all_rows_takes_them_all(world, ends):
    ends("refine", ["plan=true", f"data.path={world.rows()}", f"data.limit={2**62}"], 0)
