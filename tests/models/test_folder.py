"""Folders that are no whole model."""

import json
import shutil
from pathlib import Path

import pytest

from dgr_lightning.config import ModelConfig
from dgr_lightning.errors import UserError
from dgr_lightning.pipeline.locate_model import locate

pytestmark = pytest.mark.usefixtures("own_cache", "no_network")


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
