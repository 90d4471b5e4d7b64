"""Adapters: where they are put, their first values, and their sum with the base model's weights."""

from pathlib import Path

import pytest
import torch

from dgr_lightning.config import TuningConfig
from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import load_model
from dgr_lightning.training import adapters
from dgr_lightning.training.adapters import Adapter, add_adapters, check_adapters, collect, merge, targets
from dgr_lightning.training.checkpoints import trained_parameters
from dgr_lightning.training.tuning import load
from tests.helpers.trainings import (
    save_base,
    small_model,
)
from tests.helpers.tunings import WIDTHS, logits


def test_adapters_add_nothing_before_they_are_trained(wide_base: Path) -> None:
    adapted = load(wide_base, TuningConfig(method="lora"), "fp32", "cpu", seed=1)
    assert torch.equal(logits(adapted), logits(load_model(wide_base, "fp32", "cpu")))
    assert type(adapted).__name__ == "Qwen3ForCausalLM"
    assert all(adapter.down.std() > 0 and not adapter.up.any() for adapter in collect(adapted).values())


def test_only_the_named_modules_of_the_named_layers_are_adapted() -> None:
    model = small_model("Qwen2")
    wanted = TuningConfig(method="lora", rank=1, target_modules=["up_proj", "self_attn.v_proj"], layers="1-1")
    assert targets(model, wanted) == ["model.layers.1.self_attn.v_proj", "model.layers.1.mlp.up_proj"]
    add_adapters(model, wanted)
    assert {name.partition(".lora_")[0] for name, _ in trained_parameters(model)} == set(targets(small_model("Qwen2"), wanted))


@pytest.mark.parametrize(
    ("layers", "depth", "expected"),
    [
        (None, 28, range(28)),
        ("16-31", 48, range(16, 32)),
        ("33%-67%", 48, range(16, 32)),
        ("33%-67%", 28, range(9, 19)),
        ("0%-100%", 3, range(3)),
        ("50%-51%", 4, range(2, 3)),
        ("99.9%-100%", 4, range(3, 4)),
        ("0-0", 4, range(1)),
    ],
)
def test_layers_are_numbers_or_shares_of_the_depth(layers: str | None, depth: int, expected: range) -> None:
    assert adapters._layer_range(layers, depth) == expected


def test_first_values_follow_from_seed_and_name_alone(wide_base: Path) -> None:
    def first(seed: int, precision: str = "fp32", **changes) -> dict[str, Adapter]:
        torch.rand(seed)  # what was drawn before has no say
        return collect(load(wide_base, TuningConfig(method="lora", rank=4, **changes), precision, "cpu", seed))

    every, other_seed, some = first(1), first(2), first(1, "bf16", target_modules=["down_proj"], layers="1-1")
    assert list(some) == ["model.layers.1.mlp.down_proj"]
    assert all(torch.equal(every[name].down, adapter.down) for name, adapter in some.items())
    assert not any(torch.equal(every[name].down, adapter.down) for name, adapter in other_seed.items())
    noise = torch.cat([adapter.down.flatten() * adapter.down.shape[1] ** 0.5 for adapter in every.values()])
    assert noise.abs().max() <= 1 and noise.std().item() == pytest.approx(3**-0.5, rel=0.1)
    assert len({adapter.down.sum().item() for adapter in every.values()}) == len(every)


REFUSED = [
    ({"rank": 32}, r"tuning\.rank=32: model\.layers\.0\.self_attn\.k_proj has 32 rows or columns.*rank below 32"),
    ({"target_modules": ["upproj"]}, r"tuning\.target_modules=\[upproj\]: .*'upproj'.*q_proj, k_proj.*up_proj.*\[all-linear\]"),
    ({"target_modules": ["lm_head"]}, r"tuning\.target_modules=\[lm_head\]"),
    ({"layers": "1-2"}, r"tuning\.layers=1-2: the model has 2 decoder layers, 0-1"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value))
def test_what_has_no_place_in_the_model_is_said_before_a_weight_is_loaded(
    wide_base: Path, tmp_path: Path, changes, message
) -> None:
    wanted = TuningConfig(method="lora", **{"rank": 2} | changes)
    with pytest.raises(UserError, match=message):
        targets(load_model(wide_base, "fp32", "cpu"), wanted)
    (tmp_path / "config.json").write_bytes((wide_base / "config.json").read_bytes())  # and no weights beside it
    with pytest.raises(UserError, match=message):
        check_adapters(tmp_path, wanted)
    check_adapters(tmp_path, TuningConfig(method="lora", rank=2, layers="50%-100%"))


def test_merging_rounds_once_to_the_type_of_the_base(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "model", "Qwen2", **WIDTHS)
    small = load_model(folder, "bf16", "cpu")
    small.save_pretrained(folder)
    adapter = Adapter(torch.randn(3, 64), torch.randn(128, 3), 0.5)
    name = "model.layers.1.mlp.gate_proj"
    model = merge({name: adapter}, folder, torch.bfloat16)
    expected = small.get_submodule(name).weight.float() + 0.5 * adapter.up @ adapter.down
    assert torch.equal(model.get_submodule(name).weight, expected.to(torch.bfloat16))
