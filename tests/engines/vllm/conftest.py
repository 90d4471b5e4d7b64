"""Fixtures for the tests of engine=vllm."""

from dataclasses import replace
from pathlib import Path

import pytest

from dgr_lightning.engines.vllm.engine import VllmEngine
from tests.helpers.stand_in_pool import CONFIG, StandInPool, Words


@pytest.fixture
def fed(monkeypatch):
    """Returns a function that makes an engine on the CPU over a stand-in for its processes."""
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.VllmPool", StandInPool)

    def engine(**settings):
        return VllmEngine(Path("nowhere"), Words(), replace(CONFIG, **settings), "cpu")

    return engine
