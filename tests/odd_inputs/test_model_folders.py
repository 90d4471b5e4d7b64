"""Odd model folders: files that are missing, broken or of the wrong type, indexes and weights that lie, odd templates.

Each ends with one message that names the folder. Config, tokenizer and template are read by `plan=true`, without weights.
"""

import json
import os
import shutil
import struct

import pytest

from dgr_lightning.micro.build import SHIPPED
from tests.helpers.odd_inputs import GOOD_ROW

pytestmark = pytest.mark.slow  # a run of the command a row, some hundred rows

DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5000
JSON_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json", "dgr_chat.json")
BROKEN = {
    "empty": "",
    "white space": "  \n",
    "not JSON": "{",
    "a list": "[]",
    "a string": '"x"',
    "null": "null",
    "number": "3",
    "deep": '{"a": ' + DEEP + "}",
    "digits": '{"a": ' + DIGITS + "}",
    "half a pair": '{"\\ud800": "\\udfff"}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NUL": b"\0" * 64,
}


@pytest.fixture
def folder(world):
    """The miniature without its weights."""
    shutil.copytree(SHIPPED, world.inputs / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return world.inputs / "model"


@pytest.fixture
def plan_ends(world, ends, folder):
    """Has the model planned for a row, and checks how that ends."""

    def plan_ends(*overrides, code=2, parts=()):
        return ends("refine", ["plan=true", f"model.path={folder}", f"data.path={world.rows()}", *overrides], code, parts)

    return plan_ends


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("file", JSON_FILES)
def test_a_broken_json_file_is_one_message(file, content, folder, plan_ends):
    written = BROKEN[content]
    (folder / file).write_bytes(written.encode() if isinstance(written, str) else written)
    plan_ends(parts=(str(folder),))


ODD_FIELDS = {
    "config.json": {
        "model_type of a number": {"model_type": 3},
        "model_type of null": {"model_type": None},
        "model_type of a list": {"model_type": ["qwen3"]},
        "language of a list": {"dgr_language": ["micro"]},
        "language of a number": {"dgr_language": 3},
        "language with escapes": {"dgr_language": "\x1b[2J"},
        "quantised by a list": {"quantization_config": {"quant_method": ["\x1b[2J"]}},
    },
    "tokenizer_config.json": {
        "end token of a number": {"eos_token": 3},
        "end token of a list": {"eos_token": ["<|end|>"]},
        "end token of null": {"eos_token": None},
        "end token of an unknown text": {"eos_token": {"content": 3}},
        "template of a number": {"chat_template": 3},
        "length of text": {"model_max_length": "long"},
        "added tokens of a list": {"added_tokens_decoder": ["a"]},
        "added tokens without a number": {"added_tokens_decoder": {"x": {"content": "a"}}},
        "extra special tokens of a number": {"extra_special_tokens": 3},
    },
    "generation_config.json": {
        "end tokens of text": {"eos_token_id": "1"},
        "end tokens of lists": {"eos_token_id": [[1]]},
        "end token of a mapping": {"eos_token_id": {"a": 1}},
        "end token of half": {"eos_token_id": 0.5},
        "end tokens of text in a list": {"eos_token_id": ["a", None]},
    },
    "tokenizer.json": {
        "no model": {"model": None},
        "a model of a number": {"model": 3},
        "a model of an unknown type": {"model": {"type": "Nothing"}},
        "a vocabulary of a list": {"model": {"type": "WordLevel", "vocab": ["a"], "unk_token": "x"}},
        "a vocabulary of negatives": {"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}},
        "added tokens of numbers": {"added_tokens": [1, 2]},
        "a normalizer of nothing": {"normalizer": {"type": "Nothing"}},
        "a regular expression that is none": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "x"}},
        "a decoder of a list": {"decoder": []},
        "a post processor of a number": {"post_processor": 7},
        "version of a number": {"version": 1.0},
    },
}
ODD_RECORDS = {
    "an unknown key": {"chat_style": "think", "more": 1},
    "an unknown style": {"chat_style": "\x1b[2J"},
    "a style of a list": {"chat_style": []},
    "a style of null": {"chat_style": None},
    "marks of one": {"chat_style": "marks", "think_marks": ["<a>"]},
    "marks of numbers": {"chat_style": "marks", "think_marks": [1, 2]},
    "marks for another style": {"chat_style": "think", "think_marks": ["<a>", "</a>"]},
    "a system prompt of a number": {"system_prompt": 3},
    "arguments of a list": {"template_args": [1]},
    "arguments that the template has": {"template_args": {"messages": [], "add_generation_prompt": False}},
    "a mapping of marks": {"chat_style": "marks", "think_marks": {"a": 1, "b": 2}},
}
FINE_FIELDS = {"language of a list", "language of a number", "language with escapes"}
CASES = [(file, name) for file, cases in ODD_FIELDS.items() for name in cases]


@pytest.mark.parametrize(("file", "name"), CASES, ids=map(": ".join, CASES))
def test_a_field_of_the_wrong_type_is_one_message(file, name, folder, plan_ends):
    if "chat_template" in ODD_FIELDS[file][name]:
        (folder / "chat_template.jinja").unlink()  # which would come first
    change(folder / file, **ODD_FIELDS[file][name])
    plan_ends(code=0 if name in FINE_FIELDS else 2)


@pytest.mark.parametrize("name", ODD_RECORDS)
def test_an_odd_record_of_the_chat_format_is_one_message(name, folder, plan_ends):
    (folder / "dgr_chat.json").write_text(json.dumps(ODD_RECORDS[name]))
    plan_ends(parts=(str(folder),) if name != "arguments that the template has" else ("model.template_args",))


ODD_TEMPLATES: dict[str, bytes | str] = {
    "empty": "",
    "white space": " \n",
    "syntax": "{% for %}",
    "open": "{{ messages",
    "open block": "{% if true %}x",
    "unknown tag": "{% import_os %}",
    "unknown filter": "{{ messages | shell }}",
    "unknown function": "{{ system('ls') }}",
    "class": "{{ messages.__class__.__mro__ }}",
    "class by a filter": "{{ messages | attr('__class__') }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "imports": "{% import 'x' as x %}",
    "extends": "{% extends 'x' %}",
    "raises": "{{ raise_exception('no such role \x1b[2J') }}",
    "divides by zero": "{{ 1 / 0 }}",
    "adds text and numbers": "{{ 1 + 'a' }}",
    "index out of range": "{{ messages[7].content }}",
    "key that is not there": "{{ messages[0]['nothing'].x }}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "long text": "{{ 'x' * 10 ** 13 }}",
    "long range": "{% for a in range(10 ** 12) %}x{% endfor %}",
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "nested ranges of text": "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    "list that grows": "{% set ns = namespace(x=[1]) %}{% for a in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "format": "{{ '%999999999999d' % 1 }}",
    "centre": "{{ 'x' | center(10 ** 13) }}",
    "indent": "{{ 'x\\n' | indent(10 ** 13) }}",
    "drops the prompt": "<think></think>hello",
    "closes thinking": "{{ messages[-1].content }}<think></think>",
    "not UTF-8": b"\xff\xfe{{ messages }}",
    "NUL": b"\0",
}


@pytest.mark.parametrize("name", ODD_TEMPLATES)
def test_an_odd_chat_template_is_one_message(name, folder, plan_ends):
    written = ODD_TEMPLATES[name]
    (folder / "chat_template.jinja").write_bytes(written.encode() if isinstance(written, str) else written)
    plan_ends(parts=(str(folder),))


MISSING = {
    "config.json": lambda folder: (folder / "config.json").unlink(),
    "tokenizer.json": lambda folder: (folder / "tokenizer.json").unlink(),
    "template": lambda folder: (folder / "chat_template.jinja").unlink(),
    "everything": lambda folder: [file.unlink() for file in folder.iterdir()],
    "config.json, a folder there": lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()),
    "tokenizer.json, a folder there": lambda folder: (
        (folder / "tokenizer.json").unlink(),
        (folder / "tokenizer.json").mkdir(),
    ),
    "tokenizer.json, vocab.json there": lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"),
    "tokenizer.json, an empty tokenizer.model there": lambda folder: (
        (folder / "tokenizer.json").unlink(),
        (folder / "tokenizer.model").touch(),
    ),
    "config.json, a link to itself there": lambda folder: (
        (folder / "config.json").unlink(),
        (folder / "config.json").symlink_to("config.json"),
    ),
    "config.json, a pipe there": lambda folder: ((folder / "config.json").unlink(), os.mkfifo(folder / "config.json")),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_folder_without_a_piece_is_one_message(name, folder, plan_ends):
    MISSING[name](folder)
    plan_ends()


# --- Weights: the run itself, up to where it loads them --------------------------------------------------------------------


def header(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


def tensor(**changes):
    plain = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return header(json.dumps({"model.norm.weight": plain | changes}).encode()) + b"\0" * 8


WEIGHTS = {
    "empty": b"",
    "short": b"\x08\0\0",
    "header longer than the file": header(b"{}", 10_000),
    "header of exabytes": header(b"{}", 2**63 - 1),
    "header of all ones": header(b"{}", 2**64 - 1),
    "header of nothing": header(b""),
    "header that is not JSON": header(b"{{{{"),
    "header of a list": header(b"[]"),
    "header that is deep": header(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "header without tensors": header(b"{}"),
    "offsets beyond the end": tensor(data_offsets=[0, 2**40]),
    "offsets backwards": tensor(data_offsets=[8, 0]),
    "offsets of text": tensor(data_offsets=["a", "b"]),
    "negative shape": tensor(shape=[-2]),
    "huge shape": tensor(shape=[2**31, 2**31, 2**31]),
    "unknown type": tensor(dtype="F7"),
    "another shape": tensor(),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "random bytes": bytes(range(256)) * 4,
}
INDEXES = {
    "not JSON": "{",
    "a list": "[]",
    "no weight_map": "{}",
    "weight_map of null": '{"weight_map": null}',
    "weight_map of a list": '{"weight_map": ["a"]}',
    "weight_map of numbers": '{"weight_map": {"a": 1}}',
    "weight_map of lists": '{"weight_map": {"a": ["model-1.safetensors"]}}',
    "weight_map of mixed types": '{"weight_map": {"a": 1, "b": "model-1.safetensors"}}',
    "weight_map of an empty name": '{"weight_map": {"a": ""}}',
    "weight_map of a dot": '{"weight_map": {"a": "."}}',
    "weight_map of a pickle": '{"weight_map": {"a": "w.bin"}}',
    "weight_map outside": '{"weight_map": {"a": "../outside.safetensors"}}',
    "weight_map of an absolute path": '{"weight_map": {"a": "/etc/passwd"}}',
    "weight_map of NUL": '{"weight_map": {"a": "a\\u0000.safetensors"}}',
    "weight_map of half a pair": '{"weight_map": {"a": "\\ud800.safetensors"}}',
    "weight_map of escapes": '{"weight_map": {"a": "\\u001b[2J.safetensors"}}',
    "weight_map of a name too long": json.dumps({"weight_map": {"a": "a" * 300 + ".safetensors"}}),
    "weight_map of what is missing": '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
    "deep": '{"weight_map": ' + DEEP + "}",
    "digits": '{"weight_map": {"a": ' + DIGITS + "}}",
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_lie_are_one_message(name, world, folder, ends):
    (folder / "model.safetensors").write_bytes(WEIGHTS[name])
    ends("refine", [f"model.path={folder}", f"data.path={world.rows()}", "refine=vanilla", "data.limit=1"])


@pytest.mark.parametrize("name", INDEXES)
def test_an_odd_index_is_one_message(name, world, folder, ends):
    (folder / "model.safetensors.index.json").write_text(INDEXES[name])
    for inside in ("model-1.safetensors", "w.bin", "../outside.safetensors"):
        (folder / inside).write_bytes(header(b"{}"))
    # The second shard is missing, or the first holds nothing that the config asks for.
    ends("refine", [f"model.path={folder}", f"data.path={world.rows()}", "refine=vanilla", "data.limit=1"])


SIZES = {
    "no layers": {"num_hidden_layers": 0},
    "layers of text": {"num_hidden_layers": "three"},
    "negative width": {"hidden_size": -1},
    "width of half": {"hidden_size": 1.5},
    "no heads": {"num_attention_heads": 0},
    "width of a list": {"hidden_size": [128]},
    "a billion layers": {"num_hidden_layers": 10**9},
    "vocabulary of null": {"vocab_size": None},
    "activation of nobody": {"hidden_act": "nothing"},
    "activation of a number": {"hidden_act": 3},
    "positions of a list": {"rope_parameters": []},
    "positions of an unknown type": {"rope_parameters": {"rope_type": "nothing", "rope_theta": "x"}},
    "type of weights unknown": {"dtype": "float7"},
    "type of weights of a list": {"dtype": [1]},
    "architectures of a number": {"architectures": 3},
    "layer types of text": {"layer_types": "full_attention"},
    "layer types unknown": {"layer_types": ["nothing"] * 3},
    "code of its own": {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}},
    "a model without a head for text": {"model_type": "clip"},
    "an id of a token of text": {"eos_token_id": "x", "pad_token_id": "y"},
}
# Fields that are not read: the type is the one that the run computes in, the class that of the model type.
UNREAD = {"type of weights unknown", "type of weights of a list", "architectures of a number"}
ENDLESS = {
    "a billion layers"
}  # that many modules are made before anything can be compared: nobody's folder, and no test's time


@pytest.mark.parametrize("name", [name for name in SIZES if name not in ENDLESS])
def test_sizes_of_a_config_that_cannot_be_are_one_message(name, world, folder, ends):
    shutil.copy(SHIPPED / "model.safetensors", folder)
    change(folder / "config.json", **SIZES[name])
    (folder / "own.py").write_text("raise SystemExit('code of a folder ran')\n")
    ends(
        "refine",
        [f"model.path={folder}", f"data.path={world.rows(GOOD_ROW)}", "refine=vanilla", "data.limit=1"],
        0 if name in UNREAD else 2,
    )
