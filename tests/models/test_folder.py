"""Folders that are no whole model, and folders that would lead elsewhere."""

import json
import shutil
from pathlib import Path

import pytest

from dgr_lightning.config import ModelConfig
from dgr_lightning.errors import UserError
from dgr_lightning.models.folder import check_folder, language, weight_files
from dgr_lightning.models.model_hash import model_hash
from dgr_lightning.pipeline.locate_model import locate
from tests.helpers.models import change_config

pytestmark = pytest.mark.usefixtures("own_cache", "no_network")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_shard(folder: Path) -> None:
    no_weights(folder)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no such folder"),
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "has no model_type"),
        (no_weights, r"no weights \(model\.safetensors"),
        (pickled, r"are pickles \(pytorch_model\.bin\).*save_pretrained"),
        (no_shard, r"1 of 2 shards are missing: model-00002-of-00002\.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
    ],
)
def test_folders_that_are_no_whole_model_are_refused_by_the_key_that_names_them(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=rf"^model\.path={folder}: .*{message}"):
        locate(ModelConfig(path=str(folder)))


# JSON that somebody else wrote, in a file of a folder that is otherwise whole

DEEP = 200_000
JSON = {
    "lists nested too deeply": ("[" * DEEP + "]" * DEEP, "nested too deeply"),
    "objects nested too deeply": ('{"a":' * DEEP + "1" + "}" * DEEP, "nested too deeply"),
    "a number of 5,000 digits": ('{"a": ' + "9" * 5000 + "}", "a whole number of thousands of digits"),
    "half a character": ('{"a": "\\ud800"}', "half of a surrogate pair"),
    "a list": ("[]", "not a JSON object"),
    "a number": ("3", "not a JSON object"),
    "nothing": ("null", "not a JSON object"),
    "no text": ("", "is not JSON"),
    "half a file": ('{"a":', "is not JSON"),
    "other bytes": (b'{"a": "\xff"}', "not UTF-8 text"),
}
FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "model.safetensors.index.json",
]


@pytest.mark.parametrize("damage", JSON)
@pytest.mark.parametrize("name", FILES)
def test_json_that_cannot_be_read_is_one_message_that_names_the_file(folder, name, damage):
    content, words = JSON[damage]
    if "index" in name:
        no_weights(folder)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refusal:
        locate(ModelConfig(path=str(folder)))
    message = str(refusal.value)
    assert message.startswith(f"model.path={folder}: {name} ") and words in message and "\n" not in message, message


def test_a_config_nested_too_deeply_has_no_language_of_its_own(folder):
    (folder / "config.json").write_text("[" * DEEP)
    assert language(folder) == "natural"


# Weights: safetensors, in the folder itself


def index_of(names: object, **others: object) -> str:
    return json.dumps({"metadata": {}, "weight_map": names} | others)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (index_of({"a": "w.bin"}), r"names 'w\.bin'"),
        (index_of({"a": "w.safetensors", "b": "pytorch_model.pt"}), r"names 'pytorch_model\.pt'"),
        (index_of({"a": "../outside.safetensors"}), r"names '\.\./outside\.safetensors'"),
        (index_of({"a": "/tmp/outside.safetensors"}), r"names '/tmp/outside\.safetensors'"),
        (index_of({"a": "C:outside.safetensors"}), r"names 'C:outside\.safetensors'"),
        (index_of({"a": "..\\outside.safetensors"}), r"names '\.\."),
        (index_of({"a": "sub/w.safetensors"}), r"names 'sub/w\.safetensors'"),
        (index_of({"a": "\0.safetensors"}), r"names '\\x00\.safetensors'"),
        (index_of({"a": "\x1b]0;title\x07.safetensors"}), r"names '\\x1b\]0;title\\x07\.safetensors'"),
        (index_of({"a": "x" * 300 + ".safetensors"}), r"names 'xxx"),
        (index_of({"a": 5}), "has no file name for 'a', but int"),
        (index_of({"a": ["w.safetensors"]}), "has no file name for 'a', but list"),
        (index_of({"a": None}), "has no file name for 'a', but NoneType"),
        (index_of(["w.safetensors"]), "has no weight_map"),
        (index_of("w.safetensors"), "has no weight_map"),
        (index_of({}), "has no weight_map"),
        (index_of({"a": "w.safetensors"}, metadata=None), "has no metadata"),
    ],
)
def test_an_index_names_safetensors_beside_it_or_is_refused(folder, index, message):
    weights = (folder / "model.safetensors").rename(folder / "w.safetensors")
    for place in (folder / "w.bin", folder / "pytorch_model.pt", folder.parent / "outside.safetensors"):
        shutil.copyfile(weights, place)
    (folder / "sub").mkdir()
    shutil.copyfile(weights, folder / "sub" / "w.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=rf"^model\.path={folder}: .*model\.safetensors\.index\.json.*{message}"):
        locate(ModelConfig(path=str(folder)))


def test_weights_in_the_hubs_cache_are_links_and_are_followed(folder, tmp_path):
    from dgr_lightning.models.weights import load_model

    blob = (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(blob)
    assert weight_files(folder, "it") == [folder / "model.safetensors"]
    load_model(folder, "fp32", "cpu")


@pytest.mark.parametrize("shards", [False, True])
def test_other_weights_in_the_folder_are_neither_taken_nor_hashed(grown, tmp_path, shards):
    """The weights that transformers loads are those of `weight_files`, whatever else lies beside them."""
    import torch

    from dgr_lightning.models.weights import load_model

    source = Path(shutil.copytree(grown / ("qwen3" if shards else "qwen2"), tmp_path / "model"))
    files, content = weight_files(source, "it"), model_hash(source)
    expected = load_model(source, "fp32", "cpu").state_dict()
    (source / "pytorch_model.bin").write_bytes(b"a pickle")
    (source / "pytorch_model.bin.index.json").write_text(index_of({"lm_head.weight": "pytorch_model.bin"}))
    shutil.copyfile(files[0], source / "other.safetensors")
    if shards:
        (source / "model.safetensors").mkdir()  # a folder is no file of weights, to transformers either
    else:
        (source / "model.safetensors.index.json").write_text(index_of({"lm_head.weight": "other.safetensors"}))
    assert weight_files(source, "it") == files and model_hash(source) == content
    found = load_model(source, "fp32", "cpu").state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("name", ["w.safetensors", "../w.safetensors", "w.bin"])
def test_a_config_that_names_a_file_of_weights_is_refused(folder, name):
    change_config(folder, transformers_weights=name)
    with pytest.raises(UserError, match=r"^it: config\.json has transformers_weights.*take that entry out"):
        check_folder(folder, "it")


def test_an_adapter_over_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/somewhere/else"}')
    (folder / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match=r"^it: it holds an adapter .*merge_and_unload"):
        check_folder(folder, "it")
