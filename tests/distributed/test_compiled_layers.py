"""Compiled layers: compiled once for rows of any length, and what they keep for the backward pass."""

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch
from torch._dynamo.utils import counters
from torch._functorch import config as functorch
from torch.fx.experimental import _config as shapes

from dgr_lightning.distributed.fsdp import compile_layers, recompute
from dgr_lightning.models.attention import Documents, use_document_attention
from dgr_lightning.models.chat import Encoded
from dgr_lightning.training.loss import TargetLoss
from dgr_lightning.training.packing import collate
from tests.helpers.trainings import compile_without_code, small_model

HIDDEN, INNER, HEADS, KEYS, SIZE = 3584, 18944, 28, 4, 128
"""The widths of a 7B model."""


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Partitions what is compiled as for a GPU, makes no code of it, and leaves no setting behind."""
    compile_without_code(monkeypatch)
    torch._dynamo.reset()
    counters.clear()
    with ExitStack() as stack:
        for settings, name in (
            (functorch, "ban_recompute_materialized_backward"),
            (torch._dynamo.config, "suppress_errors"),
            (shapes, "use_duck_shape"),
        ):
            stack.enter_context(settings.patch({name: getattr(settings, name)}))
        yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "every"), [(32, 0), pytest.param(128, 1, marks=pytest.mark.slow)], ids=["kept", "as wide as a row, recomputed"]
)
def test_they_are_compiled_once_whatever_the_rows(width: int, every: int) -> None:
    model = small_model("Qwen3", hidden_size=width)
    recompute(model, every)
    compile_layers(model)
    torch._dynamo.config.suppress_errors = False
    target_loss = TargetLoss(model.train())
    assert not counters["stats"]  # nothing is compiled for the probe of the model
    rng, pieces = random.Random(0), 0
    for step in range(50):
        count = rng.randint(1, 12)
        row = collate([Encoded([5] * rng.randint(3, 80), 2) for _ in range(count)] if step else [Encoded([5] * 100, 2)])
        assert step or row["input_ids"].shape[1] == 128
        target_loss(row).backward()
        pieces = pieces or counters["stats"]["unique_graphs"]
        assert counters["stats"]["unique_graphs"] == pieces
    assert pieces == 4  # around an attention that stays eager


def kept(model: torch.nn.Module, num_tokens: int, precision: str) -> float:
    """Returns the bytes a token that a layer keeps for its backward pass, beside its weights."""
    documents = Documents([num_tokens])
    hidden = torch.randn(1, num_tokens, HIDDEN, dtype=model.dtype, requires_grad=True)
    positions = model.model.rotary_emb(hidden, torch.arange(num_tokens)[None])
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            output: torch.Tensor = model.model.layers[0](hidden, position_embeddings=positions, documents=documents)
        return output

    forward()  # compiled, and not under hooks
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values()) / num_tokens


@pytest.mark.slow
def test_at_the_widths_of_7b_they_keep_half_of_what_eager_ones_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the bf16 numbers that matrix products and attention need, next to nothing: no product of the MLP, no fp32 norms,
    and under autocast no bf16 copies of weights, which for a row of 1,088 tokens are most of all.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    settings = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": HEADS, "num_key_value_heads": KEYS}
    config = Qwen2Config(vocab_size=64, num_hidden_layers=1, **settings)
    measured = {}
    for precision, dtype in (("bf16", torch.bfloat16), ("autocast", torch.float32)):
        with torch.device("meta"):
            model = Qwen2ForCausalLM(config).to(dtype)
        model = model.to_empty(device="cpu").train()
        for weight in model.parameters():
            torch.nn.init.constant_(weight, 1e-3)
        use_document_attention(model)
        measured[precision] = kept(model, 1088, precision)
        compile_layers(model)
        measured[f"{precision}, compiled"] = kept(model, 1088, precision)
        torch._dynamo.reset()
    with capsys.disabled():
        print("\n" + "; ".join(f"{name}: {number / 1000:.1f} kB a token" for name, number in measured.items()))
    # Layer input, its norm, the residual behind attention; queries and what they attend to, twice on the CPU, which
    # concatenates documents; keys and values; gate and up.
    numbers = 3 * HIDDEN + 3 * HEADS * SIZE + 2 * KEYS * SIZE + 2 * INNER
    assert measured["bf16, compiled"] == pytest.approx(2 * numbers, rel=0.01)
    assert measured["autocast, compiled"] < 1.08 * measured["bf16, compiled"]
    assert measured["bf16"] > 1.8 * measured["bf16, compiled"]
    assert measured["autocast"] > 5 * measured["autocast, compiled"]
