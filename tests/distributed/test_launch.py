"""Ranks that die are started again."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from dgr_lightning.config import Config
from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.training.fit import TrainingResult
from tests.helpers.rank_trainings import config, train
from tests.helpers.trainings import curve, exported, save_base


def wait_for(run_dir: Path, step: int) -> None:
    """Waits for a checkpoint, which is written while training goes on."""
    while not (run_dir / "checkpoints" / f"step-{step:08}").is_dir():
        time.sleep(0.01)


def killed_once(base: Path, cfg: Config, folder: Path) -> TrainingResult:
    """Trains undisturbed, and then once more, where rank 1 is killed in the middle of step 12, once."""

    def probe(model, step: int) -> dict[str, float]:
        flag = folder / "killed"
        if step == 12 and os.environ["RANK"] == "1" and not flag.exists():
            wait_for(folder / "killed-once", 10)
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"probe/refusal_rate": 0.5}

    if not (folder / "undisturbed" / "model").exists():
        train(base, cfg, folder / "undisturbed")
    return train(base, cfg, folder / "killed-once", probe)


@pytest.mark.slow
def test_a_rank_is_killed_and_the_training_goes_on_by_itself_and_exactly(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "Qwen2", tie_word_embeddings=False)
    cfg = config("fsdp", checkpoint_every=5)
    cfg.probes.every = 4
    function = partial(killed_once, base, cfg, tmp_path)
    result = run_ranks(function, 2, num_threads=1, max_restarts=1)
    assert (tmp_path / "killed").exists() and result.resumed_from_step == 10
    assert curve(tmp_path / "killed-once") == curve(tmp_path / "undisturbed")
    found, expected = exported(tmp_path / "killed-once"), exported(tmp_path / "undisturbed")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
