"""The mathematics of a training step besides its loss: learning rates and weight decay."""

import math
from itertools import pairwise

import pytest

from dgr_lightning.config import SftConfig
from dgr_lightning.training.optimizer import OPTIMIZERS
from dgr_lightning.training.sft import SafetySft, lr_multiplier, warmup_steps
from tests.helpers.trainings import small_model


def test_the_learning_rate_rises_and_falls_as_a_cosine() -> None:
    rates = [lr_multiplier(step, 20, 5) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[5 + 5] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert rates[19] == pytest.approx(0.5 * (1 + math.cos(math.pi * 14 / 15)))
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert lr_multiplier(0, 1, 0) == 1.0
    assert lr_multiplier(3, 4, 4) == 1.0


def test_warm_up_is_a_share_of_the_steps_or_their_number() -> None:
    assert warmup_steps(SftConfig(warmup_ratio=0.1), 25) == 2
    assert warmup_steps(SftConfig(warmup_ratio=0.1, warmup_steps=5), 25) == 5
    assert warmup_steps(SftConfig(warmup_ratio=0.1, warmup_steps=0), 25) == 0
    assert warmup_steps(SftConfig(warmup_steps=50), 25) == 25


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_takes_the_betas(name: str) -> None:
    module = SafetySft(small_model("Qwen2"), SftConfig(optimizer=name, betas=[0.8, 0.95]), 1, "fp32")
    groups = module.configure_optimizers().param_groups
    assert all(tuple(group["betas"]) == (0.8, 0.95) for group in groups if not group.get("muon"))


def test_weight_decay_is_for_matrices() -> None:
    module = SafetySft(small_model("Qwen2"), SftConfig(weight_decay=0.25), 1, "fp32")
    names = {id(weight): name for name, weight in module.model.named_parameters()}
    decayed, spared = (
        {names[id(weight)] for weight in group["params"]} for group in module.configure_optimizers().param_groups
    )
    assert [group["weight_decay"] for group in module.configure_optimizers().param_groups] == [0.25, 0.0]
    assert "model.embed_tokens.weight" in decayed and "model.layers.0.mlp.up_proj.weight" in decayed
    assert {"model.norm.weight", "model.layers.1.self_attn.q_proj.bias"} <= spared
    assert len(decayed) + len(spared) == len(names)
