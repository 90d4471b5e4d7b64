"""Models wide enough for 4-bit rows, for tests of adapters."""

import torch

FAMILIES = [
    ("Qwen3", {"tie_word_embeddings": True, "head_dim": 16}),
    ("Qwen2", {"tie_word_embeddings": False}),
    ("Llama", {"tie_word_embeddings": False}),
]


WIDTHS = {"hidden_size": 64, "intermediate_size": 128}  # 4-bit rows on a CPU are multiples of 64


IDS = torch.arange(2, 40)[None]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits
