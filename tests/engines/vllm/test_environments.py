"""The share of the machine that each engine gets: GPUs, or memory and cores."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dgr_lightning.engines.vllm.engine import VllmEngine
from dgr_lightning.errors import UserError
from tests.helpers.stand_in_pool import CONFIG, StandInPool, Words


def test_several_engines_on_a_cpu_share_its_cores(fed, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LD_PRELOAD", "what the user wants.so")
    environments = fed(replicas=3, cpu_cache_gib=2)._pool.environments
    assert environments == [{"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert fed(replicas=3)._pool.environments == [{"VLLM_CPU_KVCACHE_SPACE": "1"}] * 3


def test_every_engine_has_gpus_of_its_own(monkeypatch):
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.VllmPool", StandInPool)

    def visible(**settings):
        engine = VllmEngine(Path("nowhere"), Words(), replace(CONFIG, **settings), "cuda")
        return [environment["CUDA_VISIBLE_DEVICES"] for environment in engine._pool.environments]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,GPU-7a")
    assert visible() == ["2", "3", "5", "GPU-7a"]
    assert visible(tensor_parallel=2) == ["2,3", "5,GPU-7a"]
    assert visible(tensor_parallel=3) == ["2,3,5"]
    assert visible(replicas=2) == ["2", "3"]
    with pytest.raises(UserError, match=r"takes 6 GPU.*find 4"):
        visible(replicas=3, tensor_parallel=2)
    with pytest.raises(UserError, match=r"takes 8 GPU.*find 4"):
        visible(tensor_parallel=8)


def test_a_cpu_has_no_tensor_parallel_group(fed):
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=1"):
        fed(tensor_parallel=2)
