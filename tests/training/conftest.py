"""Untrained models for tests of adapters."""

from pathlib import Path

import pytest

from tests.helpers.trainings import (
    save_base,
)
from tests.helpers.tunings import FAMILIES, WIDTHS


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family[0])
def any_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model in fp32 with the miniature's tokenizer, of one of several families."""
    family, changes = request.param
    return save_base(tmp_path_factory.mktemp("base") / "model", family, **WIDTHS, **changes)


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, changes = FAMILIES[0]
    return save_base(tmp_path_factory.mktemp("base") / "model", family, **WIDTHS, **changes)
