"""A training in one process and in two ranks, for tests: 20 steps on rows short and long, and a probe of whole weights."""

import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from dgr_lightning.config import Config, SftConfig, TrainerConfig
from dgr_lightning.distributed.fsdp import unsharded
from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.models.chat import Chat
from dgr_lightning.training import checkpoints
from dgr_lightning.training.fit import TrainingResult, fit
from tests.helpers.trainings import examples, no_space

STEPS = 20
ROWS = (60, 4096)


def config(strategy: str, max_tokens: int = 100, **trainer) -> Config:
    cfg = Config(seed=3)
    cfg.sft = SftConfig(lr=1e-3, epochs=4, batch_size=4, max_length=128, max_tokens=max_tokens, weight_decay=0.1)
    options = {"precision": "fp32", "checkpoint_every": 0, "devices": 1 if strategy == "single" else 2} | trainer
    cfg.trainer = TrainerConfig(accelerator="cpu", strategy=strategy, **options)
    cfg.probes.every = 10
    return cfg


def size_of_logits(model, step: int) -> dict[str, float]:
    """A probe that every rank computes by itself, with whole weights."""
    ids = torch.arange(2, 30)[None] + 10 * Ranks.here().rank
    with unsharded(model, "fp32") as whole, torch.no_grad():
        size = whole(input_ids=ids, use_cache=False).logits.abs().mean().item()
    return {"probe/refusal_rate": size}


def train(base: Path, cfg: Config, run_dir: Path, probe=size_of_logits) -> TrainingResult:
    compiled = partial(torch.nn.Module.compile, backend="aot_eager_decomp_partition")  # divided into passes, without code
    with patch.object(torch.nn.Module, "compile", lambda module, **options: compiled(module, **options)):
        return fit(base, Chat.load(base), examples(), cfg, run_dir, probe)


def train_all(trainings: list[tuple[Path, Config, Path]]) -> list[TrainingResult]:
    """Several trainings in the same ranks: starting them takes longer than training."""
    return [train(*training) for training in trainings]


def train_on_two_ranks(*trainings: tuple[Path, Config, Path]) -> list[TrainingResult]:
    return run_ranks(partial(train_all, list(trainings)), 2, num_threads=1)


def wait_for(run_dir: Path, step: int) -> None:
    """Waits for a checkpoint, which is written while training goes on."""
    while not (run_dir / "checkpoints" / f"step-{step:08}").is_dir():
        time.sleep(0.01)


def stop(base: Path, cfg: Config, run_dir: Path) -> None:
    """Trains until behind step 8, where the checkpoint of step 5 is whole, in several files of every rank."""
    checkpoints._FILE_BYTES = 4096

    def probe(model, step: int) -> dict[str, float]:
        if step >= 8:
            wait_for(run_dir, 5)
        return no_space(model, step)

    cfg.trainer.checkpoint_every, cfg.probes.every = 5, 8
    with pytest.raises(OSError, match="no space left"):
        train(base, cfg, run_dir, probe)


def stop_and_train_all(stopped: list[tuple[Path, Config, Path]], trainings: list[tuple[Path, Config, Path]]) -> list:
    """All in the same ranks; see `train_all`."""
    for training in stopped:
        stop(*training)
    return train_all(trainings)
