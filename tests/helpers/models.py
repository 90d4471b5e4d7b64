"""Small model folders, for tests of what is loaded, hashed and refused."""

import json
from pathlib import Path


def save_models(folder: Path) -> Path:
    """A random Qwen2 of one file, a Qwen3 of shards with tied weights, each with a stand-in for a tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(folder / "qwen2")
    Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=True)).save_pretrained(folder / "qwen3", max_shard_size="10KB")
    for model in ("qwen2", "qwen3"):
        (folder / model / "tokenizer.json").write_text("{}")
    return folder


def change_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
