"""What `sft.optimizer` chooses: steps, states that survive a checkpoint, and the same result on two ranks."""

import shutil
from pathlib import Path

import pytest
import torch

from dgr_lightning.config import SftConfig
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.muon import Muon, orthogonal
from dgr_lightning.training.optimizer import OPTIMIZERS, set_learning_rate
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import assert_same_weights, curve, small_model, train_twice

QUICK = [name for name in OPTIMIZERS.names() if name != "adamw8bit-torchao"]
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torchao's step is compiled, and there is no g++")


def step(model, optimizer, seed: int) -> float:
    """One step on a batch of random tokens; returns the loss before it."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 96, (3, 24), generator=generator)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def build(model, sft: SftConfig, precision: str) -> torch.optim.Optimizer:
    return OPTIMIZERS.get(sft.optimizer).build(model, sft, precision)


def recipe(name: str, **changes) -> SftConfig:
    return SftConfig(**{"optimizer": name, "lr": 5e-3, "weight_decay": 0.1} | changes)


# Rows of 128 and more make states of 4,096 values, which is where 8 bits begin.
WIDE = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False}


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("name", QUICK)
def test_every_optimizer_learns_and_goes_on_from_its_state_to_the_bit(name: str, tmp_path: Path) -> None:
    model = small_model("Qwen2", **WIDE)
    optimizer = build(model, recipe(name), "fp32")
    losses = [step(model, optimizer, seed=0) for _ in range(4)]
    assert losses[-1] < 0.9 * losses[0]
    checkpoints = Checkpoints(tmp_path, Ranks())
    checkpoints.save(4, model, optimizer, {})
    checkpoints.wait()

    other = small_model("Qwen2", **WIDE)
    again = build(other, recipe(name), "fp32")
    checkpoints.load(4, other, again)
    for seed in (1, 2):
        assert step(model, optimizer, seed) == step(other, again, seed)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw8bit", "paged-adamw8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_states_of_large_matrices_have_8_bits(name: str) -> None:
    model = small_model("Qwen2", **WIDE)
    optimizer = build(model, recipe(name), "fp32")
    step(model, optimizer, 0)
    assert optimizer.state[model.model.layers[0].mlp.up_proj.weight]["state1"].dtype == torch.uint8
    assert optimizer.state[model.model.norm.weight]["state1"].dtype == torch.float32


@compiler
@pytest.mark.slow
def test_torchao_trains_and_resumes(base: Path, tmp_path: Path) -> None:
    train_twice(base, tmp_path, sft_optimizer="adamw8bit-torchao")
    losses = [curve(tmp_path / name) for name in ("undisturbed", "interrupted")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and losses[0][10] < losses[0][1]


def test_weight_decay_is_for_matrices_and_muon_for_those_of_hidden_layers() -> None:
    model = small_model("Qwen2", tie_word_embeddings=False)
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = build(model, recipe("muon"), "fp32").param_groups
    assert [(group["muon"], group["weight_decay"]) for group in groups] == [(True, 0.1), (False, 0.1), (False, 0.0)]
    hidden, outer, rest = ({names[id(weight)] for weight in group["params"]} for group in groups)
    assert hidden == {name for name in names.values() if "layers" in name and name.endswith("proj.weight")}
    assert outer == {"model.embed_tokens.weight", "lm_head.weight"}
    assert "model.layers.1.self_attn.q_proj.bias" in rest and len(hidden | outer | rest) == len(names)
    for name in QUICK:
        if name == "muon":
            continue
        groups = build(model, recipe(name), "fp32").param_groups
        assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
        assert {names[id(weight)] for weight in groups[1]["params"]} == rest


def test_only_weights_that_are_trained_have_a_state() -> None:
    model = small_model("Qwen2")
    model.model.layers[0].requires_grad_(False)
    optimizer = build(model, recipe("adamw"), "fp32")
    step(model, optimizer, 0)
    assert len(optimizer.state) == sum(weight.requires_grad for weight in model.parameters())


@compiler
def test_a_rate_that_is_a_tensor_stays_one() -> None:
    optimizer = build(small_model("Qwen2"), recipe("adamw8bit-torchao"), "fp32")
    rate = optimizer.param_groups[0]["lr"]
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25
    plain = build(small_model("Qwen2"), recipe("muon"), "fp32")
    set_learning_rate(plain, 0.25)
    assert [group["lr"] for group in plain.param_groups] == [0.25] * 3


# --- Muon -----------------------------------------------------------------------------------------------------------------


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


# --- Two ranks ------------------------------------------------------------------------------------------------------------


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


def torchao_on_two_ranks_is_torchao_on_one(ranks: Ranks, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # One shape of weights, since a kernel is compiled for each; half of it is enough for 8 bits.
    torch.manual_seed(0)
    whole, model = (torch.nn.Linear(64, 256, bias=False) for _ in range(2))
    model.load_state_dict(whole.state_dict())
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizers = [build(some, recipe("adamw8bit-torchao"), "fp32") for some in (whole, model)]
    inputs, wanted = torch.randn(32, 64), torch.randn(32, 256)
    losses = []
    for _ in range(6):
        for some, optimizer in zip((whole, model), optimizers, strict=True):
            loss = (some(inputs) - wanted).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]
    torch.testing.assert_close(model.weight.full_tensor(), whole.weight, rtol=1e-5, atol=1e-6)
    state = optimizers[1].state[model.weight]["exp_avg"]
    assert type(state.to_local()).__name__ == "OptimState8bit" and state.shape == (256, 64)
    before = state.to_local().dequantize()
    checkpoints = Checkpoints(folder, ranks)
    checkpoints.save(6, model, optimizers[1], {})
    checkpoints.wait()
    ranks.broadcast(None)  # the first rank gives it its name
    again = build(model, recipe("adamw8bit-torchao"), "fp32")
    checkpoints.load(6, model, again)
    # Rounded to 8 bits once more.
    found = again.state[model.weight]["exp_avg"].to_local().dequantize()
    torch.testing.assert_close(found, before, rtol=0.02, atol=0.02 * before.abs().max().item())
    assert again.state[model.weight]["step"] == 6


@compiler
@pytest.mark.slow
def test_torchao_on_two_ranks_is_torchao_on_one_and_its_state_is_saved(tmp_path: Path) -> None:
    on_two_ranks(torchao_on_two_ranks_is_torchao_on_one, tmp_path / "checkpoint")
