"""Tokenizers encode as their own files, and the public vectors, say."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dgr_lightning.errors import UserError
from dgr_lightning.models.tokenizer import check_tokenizer


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
