"""What `sft.optimizer` chooses: steps, states that survive a checkpoint, and the same result on two ranks."""

import shutil
from pathlib import Path

import pytest
import torch

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints
from dgr_lightning.training.optimizer import OPTIMIZERS, set_learning_rate
from tests.helpers.optimizers import WIDE, build, recipe, step
from tests.helpers.ranks import on_two_ranks
from tests.helpers.trainings import curve, small_model, train_twice

QUICK = [name for name in OPTIMIZERS.names() if name != "adamw8bit-torchao"]
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torchao's step is compiled, and there is no g++")


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


# --- Two ranks ------------------------------------------------------------------------------------------------------------


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
