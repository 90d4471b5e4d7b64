"""Where a run's model comes from."""

from pathlib import Path

import pytest

from dgr_lightning.config import ModelConfig
from dgr_lightning.errors import UserError
from dgr_lightning.pipeline.locate_model import locate
from tests.helpers.models import save_models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_models(tmp_path) / "qwen2"


def test_a_local_folder_beats_recipe_and_hub(folder):
    assert locate(ModelConfig(path=str(folder), recipe="micro", hub_id="owner/model")) == folder


def test_a_model_without_any_source_names_the_key():
    with pytest.raises(UserError, match=r"model\.path is not set"):
        locate(ModelConfig())
