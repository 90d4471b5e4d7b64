"""How torch takes a GPU's memory: set before torch is loaded, never against the user's choice, and not for vLLM."""

import os
import subprocess
import sys

import pytest

from dgr_lightning.cuda_allocator import VARIABLES, fixed_segments
from tests.helpers.runs import ROOT

PRINT = "import os, dgr_lightning; print(*(os.environ.get(name) for name in ('PYTORCH_CUDA_ALLOC_CONF', 'PYTORCH_ALLOC_CONF')))"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["expandable_segments:True", "None"]),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, ["backend:native", "None"]),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, ["None", "max_split_size_mb:64"]),
    ],
    ids=lambda value: ",".join(value) or "nothing",
)
def test_segments_grow_unless_the_user_chose_otherwise(chosen, expected):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | chosen
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_vllm_gets_fixed_segments_unless_the_user_chose_otherwise(monkeypatch):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    assert fixed_segments() == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")
    assert fixed_segments() == {}
