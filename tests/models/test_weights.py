"""The target model's folder: what is refused, what its content hash holds, and loading without a network."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch

from dgr_lightning.cache import cache_dir
from dgr_lightning.config import ModelConfig
from dgr_lightning.distributed.devices import resolve_device, resolve_precision
from dgr_lightning.errors import UserError
from dgr_lightning.models import content
from dgr_lightning.models.content import model_hash
from dgr_lightning.models.weights import load_model
from dgr_lightning.pipeline.locate import locate


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """A random Qwen2 of one file, a Qwen3 of shards with tied weights, each with a stand-in for a tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("models")
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(folder / "qwen2")
    Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=True)).save_pretrained(folder / "qwen3", max_shard_size="10KB")
    for model in ("qwen2", "qwen3"):
        (folder / model / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def folder(grown, tmp_path) -> Path:
    return Path(shutil.copytree(grown / "qwen2", tmp_path / "model"))


def change_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


# --- Loading --------------------------------------------------------------------------------------------------------------


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


def test_torn_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(folder, "fp32", "cpu")


# --- Locating -------------------------------------------------------------------------------------------------------------


def test_a_local_folder_beats_recipe_and_hub(folder):
    assert locate(ModelConfig(path=str(folder), recipe="micro", hub_id="owner/model")) == folder


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_shard(folder: Path) -> None:
    no_weights(folder)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no such folder"),
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "has no model_type"),
        (no_weights, r"no weights \(model\.safetensors"),
        (pickled, r"are pickles \(pytorch_model\.bin\).*save_pretrained"),
        (no_shard, r"1 of 2 shards are missing: model-00002-of-00002\.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
    ],
)
def test_folders_that_are_no_whole_model_are_refused_by_the_key_that_names_them(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=rf"^model\.path={folder}: .*{message}"):
        locate(ModelConfig(path=str(folder)))


def test_a_model_without_any_source_names_the_key():
    with pytest.raises(UserError, match=r"model\.path is not set"):
        locate(ModelConfig())


# --- Content --------------------------------------------------------------------------------------------------------------


def test_content_is_that_of_the_files_that_make_the_model(folder, tmp_path):
    content = model_hash(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    (copy / "README.md").write_text("read me")
    (copy / "training_args.bin").write_bytes(b"x")
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"old": "gone.safetensors"}}')
    assert model_hash(copy) == content
    change_weights(copy, lambda tensors: tensors["model.norm.weight"].add_(1))
    assert model_hash(copy) != content


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "modeling.py"]
)
def test_content_changes_with_config_tokenizer_template_and_code(folder, name):
    content = model_hash(folder)
    file = folder / name
    file.write_text((file.read_text() if file.exists() else "") + "\n")
    assert model_hash(folder) != content


def test_content_of_shards_covers_each_of_them(grown, tmp_path):
    folder = Path(shutil.copytree(grown / "qwen3", tmp_path / "shards"))
    content = model_hash(folder)
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert model_hash(folder) != content


def test_hashes_of_large_files_are_remembered_by_size_and_time(folder, monkeypatch):
    monkeypatch.setattr(content, "REMEMBERED_BYTES", 10_000)
    weights, hashed = folder / "model.safetensors", []
    real = content.file_hash

    def noted(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(content, "file_hash", noted)
    monkeypatch.setattr(content, "SETTLED_SECONDS", 1e6)
    weights.touch()
    first = model_hash(folder)
    assert not (cache_dir() / "hashes.json").exists()  # written a moment ago: may be written again in the same tick
    os.utime(weights, (1_000_000_000, 1_000_000_000))
    assert model_hash(folder) == first
    hashed.clear()
    assert model_hash(folder) == first
    assert "model.safetensors" not in hashed and "config.json" in hashed
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].add_(1))
    assert model_hash(folder) != first
    (cache_dir() / "hashes.json").write_text("{torn")
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].sub_(1))
    assert model_hash(folder) == first


# --- The machine ----------------------------------------------------------------------------------------------------------


def test_device_and_precision_become_values(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(UserError, match=r"trainer\.accelerator=cuda: .* no CUDA device"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"
    for supported, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, answer=supported: answer)
        assert resolve_precision("auto", "cuda") == precision
        for name in ("avx512_bf16", "amx_bf16"):
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name, answer=supported: {"avx2": True, name: answer})
            assert resolve_precision("auto", "cpu") == precision
    assert [resolve_precision(value, "cpu") for value in ("bf16", "fp32")] == ["bf16", "fp32"]
