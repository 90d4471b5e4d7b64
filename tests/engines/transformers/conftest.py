"""Fixtures for the tests of engine=transformers: a tiny model, and requests of many lengths."""

import random

import pytest

from dgr_lightning.engines.engine import Request
from tests.helpers.decoding import VOCABULARY, qwen3


@pytest.fixture(scope="module")
def model():
    return qwen3()


@pytest.fixture(scope="module")
def requests():
    rng = random.Random(0)
    lengths = [1, 2, 2, 3, *(rng.randint(4, 60) for _ in range(45)), 60]
    return [Request(f"r{i}", tuple(rng.randrange(6, VOCABULARY) for _ in range(length))) for i, length in enumerate(lengths)]
