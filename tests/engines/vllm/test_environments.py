"""The share of the machine that each engine gets: GPUs, or memory and cores."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dgr_lightning.engines.vllm.engine import VllmEngine
from dgr_lightning.engines.vllm.sizing import GIB, ModelSize
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


def test_auto_splits_an_engine_over_as_many_gpus_as_its_weights_and_a_batch_take(monkeypatch, capsys):
    large = ModelSize(32_763_876_352, 64, 40, 8, 128, 2)
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.VllmPool", StandInPool)
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.ModelSize.of", lambda *of: large)
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.smallest_gpu_memory", lambda: 80 * GIB)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    def started(**settings) -> VllmEngine:
        engine = VllmEngine(Path("nowhere"), Words(), replace(CONFIG, batch_size=None, **settings), "cuda")
        assert engine._pool.setup.arguments["max_num_seqs"] is None and engine._batch_size == 1024
        return engine

    pool = started(tensor_parallel="auto")._pool
    assert pool.setup.arguments["tensor_parallel_size"] == 2
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in pool.environments] == ["0,1", "2,3"]
    said = " ".join(capsys.readouterr().out.split())
    assert "tensor parallel over 2 devices: beside 61.0 GiB of weights, 80 GiB have room for 7 sequences" in said
    assert "2 such devices for 76" in said and "2 engine(s) on 4 GPU(s)" in said
    assert started(tensor_parallel=4)._pool.setup.arguments["tensor_parallel_size"] == 4
    assert "tensor parallel over" not in capsys.readouterr().out
    # Without an answer about memory, and with one device, nothing is split.
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.smallest_gpu_memory", lambda: None)
    assert started(tensor_parallel="auto")._pool.setup.arguments["tensor_parallel_size"] == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr("dgr_lightning.engines.vllm.engine.smallest_gpu_memory", pytest.fail)
    assert len(started(tensor_parallel="auto")._pool.environments) == 1


def test_a_cpu_has_no_tensor_parallel_group(fed):
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=1"):
        fed(tensor_parallel=2)
