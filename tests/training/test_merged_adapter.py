"""An adapter added to its base: the sum of both as a whole model, made once."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from dgr_lightning.config import Config
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.errors import UserError
from dgr_lightning.micro.build import SHIPPED
from dgr_lightning.models.folder import check_folder
from dgr_lightning.models.weights import load_model
from dgr_lightning.training import merged_adapter
from dgr_lightning.training.merged_adapter import merged

MATRIX = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(autouse=True)
def cached(cache, monkeypatch):
    monkeypatch.setenv("DGR_CACHE", str(cache))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An adapter of the miniature with values that change something."""
    torch.manual_seed(0)
    shape = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    get_peft_model(load_model(SHIPPED, "fp32", "cpu"), shape).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "adapter")


def test_the_whole_model_is_base_plus_scaled_product_and_made_once(adapter, monkeypatch):
    folder = merged(adapter, SHIPPED, "model.path=a")
    check_folder(folder, "the whole model")
    factors = {name.split(".layers.")[1]: value for name, value in load_file(adapter / "adapter_model.safetensors").items()}
    down, up = (factors[f"0.self_attn.q_proj.lora_{side}.weight"] for side in "AB")
    base, whole = (load_file(place / "model.safetensors") for place in (SHIPPED, folder))
    assert whole.keys() == base.keys() and whole[MATRIX].dtype == base[MATRIX].dtype
    torch.testing.assert_close(whole[MATRIX], (base[MATRIX].float() + 2.0 * up @ down).to(base[MATRIX].dtype))
    unchanged = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(whole[unchanged], base[unchanged])
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (SHIPPED / name).read_bytes()
    monkeypatch.setattr(merged_adapter, "_write", None)
    assert merged(adapter, SHIPPED, "model.path=a") == folder


@pytest.mark.parametrize("variant", [{"use_rslora": True}, {"use_dora": True}, {"modules_to_save": ["norm"]}])
def test_the_whole_model_says_what_peft_says_of_base_and_adapter(variant, tmp_path):
    torch.manual_seed(1)
    shape = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, **variant)
    wrapped = get_peft_model(load_model(SHIPPED, "fp32", "cpu"), shape).eval()
    wrapped.save_pretrained(tmp_path / "saved")
    folder = merged(tmp_path / "saved", SHIPPED, "a")
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        expected, base = wrapped(ids).logits, load_model(SHIPPED, "fp32", "cpu")(ids).logits
        found = load_model(folder, "fp32", "cpu")(ids).logits
    rounding = (found - expected).abs().max()
    assert rounding < 0.02 * (base - expected).abs().max()  # weights are rounded to bf16, outputs are not the base's


def test_a_run_identifies_it_by_adapter_and_base(adapter):
    folder = merged(adapter, SHIPPED, "a")
    handle = ModelHandle(folder, Config())
    content = json.loads((folder / "dgr_merged.json").read_text())
    assert set(content) == {"adapter", "base", "version"} and handle.identity_hash != handle.model_hash


def test_the_tokenizer_that_was_saved_with_the_adapter_takes_the_place_of_the_bases(adapter):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(SHIPPED / name, adapter / name)
    (adapter / "chat_template.jinja").write_text("{{ 'trained with this' }}")
    folder = merged(adapter, SHIPPED, "a")
    assert (folder / "chat_template.jinja").read_text() == "{{ 'trained with this' }}"


@pytest.mark.parametrize("change", ["a weight missing", "a weight too many", "another shape", "another module"])
def test_an_adapter_that_does_not_fit_its_base_is_refused_and_nothing_is_kept(change, adapter, cache):
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if ".lora_A." in name)
    if change == "a weight missing":
        del weights[name]
    elif change == "a weight too many":
        weights[name.replace("q_proj", "o_proj").replace("v_proj", "o_proj")] = weights[name].clone()
    elif change == "another shape":
        weights[name] = torch.zeros(4, 7)
    else:
        config = json.loads((adapter / "adapter_config.json").read_text()) | {"target_modules": ["query"]}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, file)
    with pytest.raises(UserError, match=r"^model.path=a: does not fit its base \(.*model.base=<folder or id on the hub>"):
        merged(adapter, SHIPPED, "model.path=a")
    assert not [path for path in (cache / "merged").iterdir() if path.is_dir()]
