"""Fixtures for the whole suite: the miniature from the ordinary cache, and real data where `$DGR_SHARED` names it."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data sets and tokenizers; tests that need it skip where it is not given."""
    if "DGR_SHARED" not in os.environ:
        pytest.skip("$DGR_SHARED is not set: no real data and tokenizers on this machine")
    return Path(os.environ["DGR_SHARED"])


@pytest.fixture(scope="session")
def micro_folder() -> Path:
    """The miniature as the project itself would use it: grown now if this machine never grew it."""
    from dgr_lightning import models
    from dgr_lightning.config import ModelConfig

    return models.locate(ModelConfig(recipe="micro"))
