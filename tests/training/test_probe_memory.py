"""What a probe needs beside a training, from the model's own sizes."""

import pytest
import torch

from dgr_lightning.models.chat import Chat
from dgr_lightning.training.optimizer import OPTIMIZERS
from dgr_lightning.training.probe_memory import ProbeSize, future_state_bytes, needed_bytes
from tests.helpers.trainings import small_model

SIZE = ProbeSize(rows=8, longest_prompt=10, max_new_tokens=90)


def test_the_cache_that_is_counted_is_the_one_that_decoding_allocates(base, monkeypatch):
    """A quarter of the rows, at their full length, in the type of the computation."""
    from dgr_lightning.engines.engine import Request, Sampling
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.engines.transformers.kv_cache import KeyValueCache
    from dgr_lightning.models.weights import load_model

    allocated = []
    real = KeyValueCache.allocate

    def allocate(self, states, num_columns, min_slots):
        real(self, states, num_columns, min_slots)
        allocated.append(sum(tensor.nbytes for tensor in self._tensors) / num_columns)

    monkeypatch.setattr(KeyValueCache, "allocate", allocate)
    model = load_model(base, "fp32", "cpu")
    requests = [Request(str(index), [5] * 10) for index in range(2)]
    list(TransformersEngine(model, Chat.load(base), "fp32").generate(requests, Sampling(0.0, 1.0, 4, 0, (1,))))
    longer = ProbeSize(rows=8, longest_prompt=10, max_new_tokens=91)
    column = needed_bytes(model, "fp32", torch.float32, longer)[1] - needed_bytes(model, "fp32", torch.float32, SIZE)[1]
    assert column == allocated[0]


def test_copies_of_the_weights_are_counted_where_autocast_makes_them():
    model = small_model("Qwen2")
    numbers = sum(weight.numel() for weight in model.parameters())
    assert needed_bytes(model, "bf16", torch.bfloat16, SIZE)[0] == 2 * numbers
    assert needed_bytes(model, "fp32", torch.float32, SIZE)[0] == 0
    assert needed_bytes(model.to(torch.bfloat16), "bf16", torch.bfloat16, SIZE)[0] == 0


@pytest.mark.parametrize(("optimizer", "per_number"), [("adamw", 8), ("adamw8bit", 2.03125), ("paged-adamw", 0)])
def test_states_that_are_yet_to_come_are_counted_for_what_is_trained_on_the_device(optimizer, per_number):
    model = small_model("Llama")
    assert future_state_bytes(model, OPTIMIZERS.get(optimizer)) == 0, "states of weights in host memory stay there"
    model = model.to("meta")
    model.get_input_embeddings().requires_grad_(False)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert future_state_bytes(model, OPTIMIZERS.get(optimizer)) == pytest.approx(per_number * trained, abs=1)
