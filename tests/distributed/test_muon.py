"""Muon: PyTorch's on one device, and the same on two ranks."""

from pathlib import Path

import pytest
import torch

from dgr_lightning.distributed.muon import Muon, orthogonal
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints
from tests.helpers.optimizers import WIDE, build, recipe, step
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import assert_same_weights, curve, small_model, train_twice


def test_muon_is_pytorchs_muon_beside_pytorchs_adamw() -> None:
    models = [small_model("Qwen2", tie_word_embeddings=False) for _ in range(2)]
    optimizer = build(models[0], recipe("muon"), "bf16")
    others = [(name, weight) for name, weight in models[1].named_parameters() if not ("layers" in name and weight.ndim == 2)]
    theirs = [
        torch.optim.Muon(
            [weight for name, weight in models[1].named_parameters() if "layers" in name and weight.ndim == 2],
            lr=5e-3,
            weight_decay=0.1,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW([weight for _, weight in others if weight.ndim > 1], lr=5e-3, weight_decay=0.1, fused=True),
        torch.optim.AdamW([weight for _, weight in others if weight.ndim == 1], lr=5e-3, weight_decay=0.0, fused=True),
    ]
    for seed in range(4):
        step(models[0], optimizer, seed)
        ids = torch.randint(2, 96, (3, 24), generator=torch.Generator().manual_seed(seed))
        models[1](input_ids=ids, labels=ids, use_cache=False).loss.backward()
        for other in theirs:
            other.step()
            other.zero_grad()
    for (name, weight), expected in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(weight, expected), name


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (24, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonal_keeps_directions_and_levels_their_lengths(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix, dtype)
    assert result.dtype == dtype and result.shape == shape
    values = torch.linalg.svdvals(result.float())
    assert values.min() > 0.3 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    middle = left.T @ result.float() @ right.T
    assert (middle - middle.diag().diag()).abs().max() < (1e-4 if dtype == torch.float32 else 0.05)
    assert torch.equal(orthogonal(torch.zeros(shape), dtype), torch.zeros(shape, dtype=dtype))


def test_a_step_of_muon_has_the_size_of_one_of_adamw() -> None:
    sizes = {}
    for name in ("adamw", "muon"):
        model = small_model("Qwen2", **WIDE)
        before = model.model.layers[0].mlp.up_proj.weight.clone()
        step(model, build(model, recipe(name, weight_decay=0.0, lr=1e-3), "fp32"), 0)
        sizes[name] = (model.model.layers[0].mlp.up_proj.weight - before).square().mean().sqrt().item()
    assert sizes["adamw"] == pytest.approx(1e-3, rel=0.01)
    assert sizes["muon"] == pytest.approx(0.2e-3, rel=0.3)  # 0.2 is what AdamW's steps come to in a long training


def test_lightning_counts_a_step_of_muon_once_and_resumes_to_the_bit(base: Path, tmp_path: Path) -> None:
    train_twice(base, tmp_path, sft_optimizer="muon")
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "interrupted")
    assert list(curve(tmp_path / "undisturbed")) == list(range(1, 11))


def sharded(name: str):
    """A model, its optimizer, and both again in parts over the ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    models = [small_model("Qwen2", **WIDE | {"intermediate_size": 120}) for _ in range(2)]
    mesh = init_device_mesh("cpu", (2,))
    for layer in models[1].model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(models[1], mesh=mesh)
    return [(model, build(model, recipe(name), "fp32")) for model in models]


def muon_on_two_ranks_is_muon_on_one(ranks: Ranks, folder: Path) -> None:
    (whole, ours), (model, parts) = sharded("muon")
    assert isinstance(parts, Muon)
    # What two ranks add up is the gradient of one to rounding, which Newton's and Schulz's iteration makes a little larger.
    for seed in range(4):
        assert step(whole, ours, seed) == pytest.approx(step(model, parts, seed), rel=1e-5)
    for (name, weight), expected in zip(model.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(weight.full_tensor(), expected, rtol=1e-4, atol=1e-5, msg=name)

    checkpoints = Checkpoints(folder, ranks)
    checkpoints.save(4, model, parts, {})
    checkpoints.wait()
    ranks.broadcast(None)  # the first rank gives it its name
    loss = step(model, parts, seed=9)
    after = [weight.full_tensor() for weight in model.parameters()]
    again = build(model, recipe("muon"), "fp32")
    checkpoints.load(4, model, again)
    assert step(model, again, seed=9) == loss
    assert all(torch.equal(weight.full_tensor(), value) for weight, value in zip(model.parameters(), after, strict=True))


@pytest.mark.slow
def test_muon_on_two_ranks_is_muon_on_one_and_its_state_is_saved_in_parts(tmp_path: Path) -> None:
    on_two_ranks(muon_on_two_ranks_is_muon_on_one, tmp_path / "checkpoint")
