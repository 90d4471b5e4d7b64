"""What a step needs is counted as the mathematics says."""

import pytest
import torch

from dgr_lightning.training.flops import ModelFlops, peak_flops
from dgr_lightning.training.packing import StepLoader
from tests.helpers.trainings import small_model
from tests.training.test_packing import documents


@pytest.mark.parametrize("changes", [{"tie_word_embeddings": False}, {"tie_word_embeddings": True}])
def test_operations_of_a_step_are_those_that_torch_counts(changes: dict) -> None:
    """The forward pass of one document that is learned from whole, against torch's own counter of matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    model = small_model("Qwen2", **changes).requires_grad_(False)
    model.set_attn_implementation("eager")  # whose products the counter sees, of every pair of tokens
    (document,) = documents(40)
    with FlopCounterMode(display=False) as counter:
        model(torch.tensor([document.ids]) % 96)
    flops = ModelFlops.of(model)
    # A frozen weight's four are two forwards and two backwards; biases and norms are no products.
    vectors = 4 * sum(weight.numel() for weight in model.parameters() if weight.ndim < 2)
    products = (flops.per_token - vectors) / 2 * 40 + flops.per_target / 2 * 40 + flops.per_pair / 3 * 40 * 40
    assert counter.get_total_flops() == pytest.approx(products, rel=1e-6)


def test_a_step_counts_documents_and_what_they_see_not_the_filler() -> None:
    (batch,) = StepLoader(documents(10, 30), batch_size=2, max_tokens=64, seed=1, epochs=1)
    assert (batch["num_tokens"], batch["num_pairs"]) == (40, 55 + 465)
    assert ModelFlops(2.0, 3.0, 5.0).step(batch["num_tokens"], batch["num_targets"], batch["num_pairs"]) == (
        2 * 40 + 3 * batch["num_targets"] + 5 * 520
    )


def test_the_cpus_peak_is_measured() -> None:
    assert peak_flops(torch.device("cpu"), "fp32") > 1e9
