"""The folder of an adapter: what can be used, what its base is, and what names it."""

import json

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from dgr_lightning.models.adapter_folder import Base, adapter_hash, base_of, check_adapter, is_adapter
from dgr_lightning.models.folder import check_folder, language


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": "Qwen/Qwen3-0.6B", "revision": "abc"}
    write_json(folder / "adapter_config.json", config)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def change(folder, **values):
    file = folder / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | values)


def test_a_whole_model_is_no_adapter(adapter):
    assert is_adapter(adapter)
    write_json(adapter / "config.json", {"model_type": "qwen2"})
    assert not is_adapter(adapter)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"peft_type": "IA3"}, "an adapter of the type IA3; only LORA is added to its base here"),
        ({"peft_type": None}, "an adapter of the type None"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
    ],
)
def test_an_adapter_that_cannot_be_added_is_refused(values, said, adapter):
    change(adapter, **values)
    with pytest.raises(UserError, match=f"^model.path=a: .*{said}"):
        check_adapter(adapter, "model.path=a")


def test_weights_that_are_missing_or_pickled_are_refused(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no adapter_model.safetensors beside its adapter_config.json"):
        check_adapter(adapter, "a")
    (adapter / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="its weights are a pickle"):
        check_adapter(adapter, "a")


def test_the_base_is_what_the_user_names_else_what_the_adapter_names(adapter, tmp_path):
    assert base_of(adapter, None, "a") == Base(None, "Qwen/Qwen3-0.6B", "abc")
    assert base_of(adapter, "Qwen/Qwen3-4B", "a") == Base(None, "Qwen/Qwen3-4B", None)
    (tmp_path / "base").mkdir()
    assert base_of(adapter, str(tmp_path / "base"), "a") == Base(tmp_path / "base")
    change(adapter, base_model_name_or_path=str(tmp_path / "base"))
    assert base_of(adapter, None, "a") == Base(tmp_path / "base")


@pytest.mark.parametrize("named", [None, "", 3, "/nowhere/at/all"])
def test_a_base_that_is_not_here_is_asked_for(named, adapter):
    change(adapter, base_model_name_or_path=named)
    with pytest.raises(UserError, match=r"Write model.base=<folder or id on the hub>"):
        base_of(adapter, None, "model.path=a")


def test_an_adapter_on_an_adapter_is_refused(adapter):
    with pytest.raises(UserError, match="which is an adapter itself"):
        base_of(adapter, str(adapter), "a")


def test_an_adapter_is_named_by_its_content_and_not_by_where_its_base_lay(adapter):
    before = adapter_hash(adapter)
    change(adapter, base_model_name_or_path="/another/place", revision=None, inference_mode=True)
    assert adapter_hash(adapter) == before
    change(adapter, r=8)
    assert adapter_hash(adapter) != before
    change(adapter, r=4)
    (adapter / "tokenizer.json").write_text("{}")
    assert adapter_hash(adapter) != before


def test_elsewhere_an_adapter_is_refused_with_what_to_do(adapter):
    with pytest.raises(UserError, match=r"^model.path=a: an adapter without its base. evaluate.py measures it"):
        check_folder(adapter, "model.path=a")


def test_an_adapter_speaks_the_language_of_its_base(adapter, tmp_path):
    assert language(adapter) == "natural"
    write_json(tmp_path / "base" / "config.json", {"dgr_language": "micro"})
    change(adapter, base_model_name_or_path=str(tmp_path / "base"))
    assert language(adapter) == "micro"
