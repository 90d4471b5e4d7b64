"""The content hash of a model: what it covers, and what is remembered of large files."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from dgr_lightning.cache import cache_dir
from dgr_lightning.hashes import file_hash
from dgr_lightning.models import model_hash as module
from dgr_lightning.models.model_hash import model_hash
from tests.helpers.models import change_weights

pytestmark = pytest.mark.usefixtures("own_cache", "no_network")


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
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 10_000)
    weights, hashed = folder / "model.safetensors", []
    real = module.file_hash

    def noted(path: Path, advance) -> str:
        hashed.append(path.name)
        return real(path, advance)

    monkeypatch.setattr(module, "file_hash", noted)
    monkeypatch.setattr(module, "STABLE_SECONDS", 1e6)
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


def in_the_hubs_cache(folder: Path, cache: Path, names: dict[str, str]) -> Path:
    """A folder as the hub's client stores it: links to blobs, by their names or else the git hash of their content."""
    snapshot, blobs = cache / "snapshots" / "c0ffee", cache / "blobs"
    for made in (snapshot, blobs):
        made.mkdir(parents=True)
    for file in folder.iterdir():
        blob = names.get(file.name) or hashlib.sha1(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blobs / blob)
        (snapshot / file.name).symlink_to(Path("../../blobs", blob))
    return snapshot


def test_in_the_hubs_cache_large_files_are_known_by_their_names_and_the_hash_is_that_of_a_plain_folder(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 10_000)
    content, hashed = model_hash(folder), []
    digest = file_hash(folder / "model.safetensors")
    real = module.file_hash
    monkeypatch.setattr(module, "file_hash", lambda path, advance: hashed.append(path.name) or real(path, advance))
    assert model_hash(in_the_hubs_cache(folder, tmp_path / "hub", {"model.safetensors": digest})) == content
    assert "model.safetensors" not in hashed and "config.json" in hashed
    assert model_hash(in_the_hubs_cache(folder, tmp_path / "unnamed", {})) == content
    assert "model.safetensors" in hashed


def test_a_bar_shows_how_far_large_files_are(folder, monkeypatch, capsys):
    monkeypatch.setattr(module, "SILENT_BYTES", 1000)
    model_hash(folder)
    assert "hashing the model" in capsys.readouterr().out
