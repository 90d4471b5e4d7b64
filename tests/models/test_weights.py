"""Loading a model from its folder: its own weights, without a network, or a refusal."""

import shutil

import pytest
import torch

from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import load_model, outline
from tests.helpers.models import change_config, change_weights

pytestmark = pytest.mark.usefixtures("own_cache", "no_network")


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32), ("master", torch.float32)])
def test_loading_gives_the_stored_weights_in_eval_mode_quietly(grown, name, precision, dtype, capfd):
    model = load_model(grown / name, precision, "cpu")
    assert not model.training and {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 64)
    assert capfd.readouterr() == ("", "")


def test_sharded_and_single_weights_are_the_same_model(grown, tmp_path):
    from safetensors.torch import load_file

    assert len(list((grown / "qwen3").glob("model-*.safetensors"))) > 1
    model = load_model(grown / "qwen3", "fp32", "cpu")
    stored = {name: tensor for shard in (grown / "qwen3").glob("*.safetensors") for name, tensor in load_file(shard).items()}
    assert stored and all(torch.equal(model.state_dict()[name], tensor) for name, tensor in stored.items())


def test_a_model_that_trained_and_was_saved_loads_again(folder, tmp_path):
    load_model(folder, "bf16", "cpu").save_pretrained(tmp_path / "again")
    shutil.copy(folder / "tokenizer.json", tmp_path / "again")
    first, second = (load_model(path, "bf16", "cpu").state_dict() for path in (folder, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_missing_weights_are_refused_instead_of_drawn_at_random(folder):
    change_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"asks for weights that are not there: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder, "fp32", "cpu")


def test_weights_of_another_shape_are_refused_with_the_shapes(folder):
    change_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(31)}))
    with pytest.raises(UserError, match=r"model\.norm\.weight \(of another shape: \(31,\) stored, \(32,\) expected\)"):
        load_model(folder, "fp32", "cpu")


def test_superfluous_weights_are_named(folder, capsys):
    change_weights(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(1)}))
    load_model(folder, "fp32", "cpu")
    assert "left out: model.extra.weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "nonesuch"}, "does not recognize this architecture"),
        ({"model_type": "clip"}, "cannot be loaded as a causal language model"),
        (
            {"model_type": "nonesuch", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}},
            "trust_remote_code=true",
        ),
    ],
)
def test_models_that_transformers_cannot_make_are_refused(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(UserError, match=message):
        load_model(folder, "fp32", "cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "large"},
        {"hidden_size": None},
        {"hidden_size": -5},
        {"vocab_size": -1},
        {"num_attention_heads": 0},
        {"layer_types": 5},
        {"rope_parameters": {"rope_type": "nonesuch"}},
        {"auto_map": 5},
        {"quantization_config": 5},
        {"hidden_act": "nonesuch"},
    ],
    ids=str,
)
def test_a_config_of_wrong_values_is_one_message(folder, changes):
    change_config(folder, **changes)
    with pytest.raises(UserError) as refusal:
        load_model(folder, "fp32", "cpu")
    message = str(refusal.value)
    assert message.startswith(f"{folder}: cannot be loaded as a ") and "\n" not in message
    outline(folder)  # None where there is none, for checks that come before a model is loaded


def test_a_lack_of_memory_is_not_the_folders_fault(folder, monkeypatch):
    from transformers import AutoModelForCausalLM

    for lack in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError()):

        def fail(*_, lack=lack, **__):
            raise lack

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
        with pytest.raises(type(lack)):
            load_model(folder, "fp32", "cpu")


def test_torn_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(folder, "fp32", "cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_linear_weights_held_in_bf16_compute_what_autocast_does_and_come_back_as_they_were(tied):
    from dgr_lightning.models.weights import linear_weights_in
    from tests.helpers.trainings import small_model

    model, ids = small_model("Qwen2", tie_word_embeddings=tied), torch.arange(3, 40)[None]
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(input_ids=ids).logits
        with linear_weights_in(model, torch.bfloat16):
            types = {name: weight.dtype for name, weight in model.named_parameters()}
            assert torch.equal(model(input_ids=ids).logits, expected)
    assert types["model.layers.0.mlp.up_proj.weight"] == torch.bfloat16 and types["model.embed_tokens.weight"] == torch.float32
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places
    model(input_ids=ids).logits.sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())
