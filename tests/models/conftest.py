"""Chats of real families, and real rows, for the tests of this folder."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from dgr_lightning.models.chat import Chat
from tests.helpers.chats import Micro, word_chat
from tests.helpers.models import save_models


@pytest.fixture(scope="module")
def folders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tokenizers = shared / "tokenizers"
    llama = tmp_path_factory.mktemp("tokenizers") / "r1-distill-llama"
    llama.mkdir()
    shutil.copyfile(tokenizers / "r1-distill-qwen" / "tokenizer.json", llama / "tokenizer.json")
    config = json.loads((tokenizers / "r1-distill-qwen" / "tokenizer_config.json").read_text(encoding="utf-8"))
    del config["chat_template"]
    (llama / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    template = tokenizers / "templates" / "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja"
    shutil.copyfile(template, llama / "chat_template.jinja")
    return {"r1-distill-llama": llama} | {name: tokenizers / name for name in ("r1-distill-qwen", "qwen3", "qwen2.5")}


@pytest.fixture(scope="module")
def chats(folders: dict[str, Path]) -> dict[str, Chat]:
    """By the folder's name; Qwen2.5's tokenizer is that of s1.1, which nothing in its files says."""
    return {name: Chat.load(folder, "s1" if name == "qwen2.5" else "auto") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[tuple[str, str, str]]:
    """Real (prompt, trace, answer): STAR-1, and a set whose traces are all empty."""
    star = json.loads((shared / "data" / "star1" / "STAR-1.json").read_text(encoding="utf-8"))
    triples = [(row["question"], *row["response"].removeprefix("<think>\n").split("\n</think>\n\n")) for row in star[:300]]
    empty = json.loads((shared / "data" / "lrm_safety_study_nocot" / "sft_train_nocot.json").read_text(encoding="utf-8"))
    head = "<think>\n\n</think>\n\n"
    assert all(row["response"].startswith(head) for row in empty)
    return triples + [(row["prompt"], "", row["response"].removeprefix(head)) for row in empty[:300]]


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    return word_chat(tmp_path_factory.mktemp("micro"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown / "qwen2", tmp_path / "model"))
