"""A tiny model, and what it generates with engine=transformers: shared by the tests of that engine's files."""

from collections import Counter

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from dgr_lightning.engines.engine import Completion, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine
from tests.helpers import trainings

VOCABULARY = 97
SIZES = trainings.SIZES | {"vocab_size": VOCABULARY, "initializer_range": 0.3}
GREEDY = Sampling(temperature=0, top_p=1.0, max_new_tokens=24, seed=0, stop_ids=(3, 4, 5))
SAMPLED = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=24, seed=7, stop_ids=(3, 4, 5))


class Numbers:
    """Decodes to the numbers themselves."""

    pad_id = 0

    def decode(self, ids):
        return " ".join(map(str, ids))


def qwen3(**changes):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES | {"head_dim": 8, "tie_word_embeddings": True} | changes)).eval()


def generate(model, requests, sampling, batch_size=128, precision="fp32") -> dict[str, Completion]:
    completions = list(TransformersEngine(model, Numbers(), precision, batch_size).generate(requests, sampling))
    assert Counter(completion.key for completion in completions) == Counter(request.key for request in requests)
    return {completion.key: completion for completion in completions}
