"""The exported folder is the base model's with other weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from dgr_lightning.models.chat import Chat
from tests.helpers.trainings import (
    train,
    weights,
)


def test_the_exported_folder_is_the_base_with_other_weights(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train(base, tmp_path)
    folder = tmp_path / "model"
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    added = {"README.md", "dgr_chat.json"}
    assert {file.name for file in folder.iterdir()} == {file.name for file in base.iterdir()} | added
    assert json.loads((folder / "dgr_chat.json").read_text()) == {"chat_style": "think"}
    card = (folder / "README.md").read_text()
    assert card.startswith("---\npipeline_tag: text-generation\n") and "10 steps" in card and str(tmp_path) not in card
    stored = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
    assert stored.keys() == load_file(base / "model.safetensors").keys()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer("start with 9")["input_ids"] == Chat.load(base).tokenizer("start with 9")["input_ids"]
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights(tmp_path)[f"model.{name}"].to(torch.bfloat16)), name
    assert not list(tmp_path.glob("*.partial"))
