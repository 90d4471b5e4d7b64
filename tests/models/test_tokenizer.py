"""Tokenizers encode as their own files, and the public vectors, say."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dgr_lightning.errors import UserError
from dgr_lightning.micro.build import SHIPPED
from dgr_lightning.models.tokenizer import check_tokenizer, load_tokenizer, stop_ids


def vector_texts(shared: Path, name: str) -> list[tuple[str, list[int]]]:
    texts = (shared / "tokenizers" / "vectors" / f"{name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (shared / "tokenizers" / "vectors" / f"{name}.out").read_text(encoding="utf-8").split("\n")
    return [(text, [int(id_) for id_ in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.mark.parametrize(
    ("name", "vectors"),
    [
        ("r1-distill-qwen", "ggml-vocab-deepseek-r1-qwen.gguf"),
        ("r1-distill-llama", "ggml-vocab-deepseek-r1-qwen.gguf"),
        ("qwen3", "ggml-vocab-qwen2.gguf"),
        ("qwen2.5", "ggml-vocab-qwen2.gguf"),
    ],
)
def test_encoding_agrees_with_the_public_vectors(chats, shared, name, vectors):
    pairs = vector_texts(shared, vectors)
    assert len(pairs) == 47
    wrong = [text for text, ids in pairs if chats[name].tokenizer.encode(text, add_special_tokens=False) != ids]
    assert wrong == []


def test_a_tokenizer_that_disagrees_with_its_own_file_is_refused(folders):
    # Without a config.json beside it AutoTokenizer makes this one a Llama tokenizer.
    wrong = AutoTokenizer.from_pretrained(folders["r1-distill-qwen"])
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        check_tokenizer(wrong, folders["r1-distill-qwen"] / "tokenizer.json")


# Files of wrong types, in the folder of the miniature

WRONG = {
    "tokenizer_config.json": {
        "eos_token": [5, ["a"], {"content": 5}],
        "pad_token": [5, {}],
        "model_max_length": ["long"],
        "chat_template": [["a"], [{"name": "a"}]],
        "added_tokens_decoder": [5, {"a": 5}, {"1": {"content": 5}}],
        "extra_special_tokens": [5, {"a": 5}, ["a", 5]],
        "model_input_names": [5],
    },
    "tokenizer.json": {
        "version": [5, "a"],
        "truncation": [5, {}],
        "padding": ["a"],
        "added_tokens": [5, "a", [5], {}],
        "normalizer": [5, {"type": "None"}],
        "pre_tokenizer": ["a"],
        "post_processor": [[5]],
        "decoder": [{}],
        "model": [5, {}, {"type": "WordLevel", "vocab": {}, "unk_token": "a"}, {"type": "WordLevel", "vocab": {"a": -1}}],
    },
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    return folder


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [(name, key, value) for name, keys in WRONG.items() for key, values in keys.items() for value in values],
)
def test_a_value_of_a_wrong_type_is_one_message(mine, name, key, value):
    change(mine / name, **{key: value})
    with pytest.raises(UserError, match=r"no tokenizer that loads \(\w+: .*It needs tokenizer\.json"):
        load_tokenizer(mine)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "3", "null", "[]", '"a"', "", "{"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_json_that_is_no_tokenizer_is_one_message(mine, name, text):
    (mine / name).write_text(text)
    with pytest.raises(UserError, match="no tokenizer that loads"):
        load_tokenizer(mine)


def test_a_panic_of_the_library_is_one_message_and_ctrl_c_is_not_caught(mine, monkeypatch):
    class PanicException(BaseException):
        """As pyo3 raises it: no Exception."""

    for raised, seen in ((PanicException("index out of bounds"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)):

        def fail(*_: object, raised: BaseException = raised, **__: object) -> None:
            raise raised

        monkeypatch.setattr(PreTrainedTokenizerFast, "from_pretrained", fail)
        with pytest.raises(seen):
            load_tokenizer(mine)


@pytest.mark.parametrize("value", ["a", ["a"], -1, 1.5, True, {"a": 1}, [[1]], 10**30])
def test_end_tokens_are_ids(mine, value):
    change(mine / "generation_config.json", eos_token_id=value)
    with pytest.raises(UserError, match=r"eos_token_id in generation_config\.json is .*write the id of a token"):
        stop_ids(mine)


@pytest.mark.parametrize(("value", "ids"), [(None, []), (0, [0]), (7, [7]), ([7, 0], [7, 0]), ([], [])])
def test_end_tokens_are_one_several_or_none(mine, value, ids):
    change(mine / "generation_config.json", eos_token_id=value)
    assert stop_ids(mine) == ids
