"""How many devices one engine is split over, from the model's size and the memory of a device."""

import json

import pytest

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.vllm.sizing import GIB, ModelSize, tensor_parallel_size

# Parameters, layers, heads, heads of keys and values, components of a head: the R1 distillates in bf16.
MODELS = {
    "1.5B": ModelSize(1_777_088_000, 28, 12, 2, 128, 2),
    "7B": ModelSize(7_615_616_512, 28, 28, 4, 128, 2),
    "14B": ModelSize(14_770_033_664, 48, 40, 8, 128, 2),
    "32B": ModelSize(32_763_876_352, 64, 40, 8, 128, 2),
    "70B": ModelSize(70_553_706_496, 80, 64, 8, 128, 2),
}
# A card of so many GB has about as many GiB: 79.6, 140.4 and 24.0.
CARDS = {24: 24 * GIB, 80: int(79.6 * GIB), 141: int(140.4 * GIB)}


@pytest.mark.parametrize(
    ("card", "sizes"),
    [(80, [1, 1, 1, 2, 4]), (141, [1, 1, 1, 1, 2]), (24, [1, 2, 4, 8, 8])],
)
def test_eight_devices_are_split_as_little_as_a_batch_allows(card, sizes):
    found = [tensor_parallel_size(model, EngineConfig(), CARDS[card], 8) for model in MODELS.values()]
    # Attention of 28 and 40 heads is split over 4 and 8 at most, and 12 over 4.
    assert found == sizes


def test_what_is_left_for_keys_and_values():
    """A 32B model on one 80 GB card: 7.5 GiB, which is seven sequences of 4,096 tokens."""
    model, share = MODELS["32B"], 0.9 * CARDS[80]
    per_token = 2 * 64 * 8 * 128 * 2
    assert model.num_sequences(1, share, 4096) == 7 and 7.5 * GIB // (4096 * per_token) == 7
    assert model.num_sequences(2, share, 4096) > 70
    # Beyond eight devices, each of eight heads of keys and values is kept twice: a device has no more room for more sequences.
    split = ModelSize(0, 64, 64, 8, 128, 2)
    assert split.num_sequences(16, share, 4096) == split.num_sequences(8, share, 4096)
    assert MODELS["70B"].num_sequences(1, share, 4096) == 0


@pytest.mark.parametrize(
    ("settings", "num_devices", "size"),
    [
        ({}, 1, 1),  # nothing to choose: vLLM says what does not fit
        ({}, 2, 2),
        ({}, 6, 2),  # divides the devices
        ({"replicas": 4}, 8, 2),  # each of them finds its devices
        ({"replicas": 8}, 8, 1),
        ({"batch_size": 2, "max_length": 1024}, 8, 2),  # weights alone do not fit on one
        ({"batch_size": 1000}, 8, 4),  # more is welcome, and not worth more devices
        ({"memory": 0.5}, 8, 8),
    ],
)
def test_of_70b_on_80_gb(settings, num_devices, size):
    assert tensor_parallel_size(MODELS["70B"], EngineConfig(**settings), CARDS[80], num_devices) == size


def test_a_size_is_read_from_config_and_headers(micro_folder):
    from dgr_lightning.models.weights import load_model

    config = json.loads((micro_folder / "config.json").read_text())
    model = load_model(micro_folder, "fp32", "cpu")
    assert ModelSize.of(micro_folder, "bf16") == ModelSize(
        sum(weight.numel() for weight in model.parameters()),
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
        2,
    )
    assert ModelSize.of(micro_folder, "fp32").bytes_each == 4
