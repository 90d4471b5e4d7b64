"""A training that its disk has no room for is refused before anything is generated, with what to write instead."""

import sys
from pathlib import Path

import pytest

from dgr_lightning.cli import entry
from dgr_lightning.cli.failures import BAD_CONFIG
from dgr_lightning.config import Config
from dgr_lightning.errors import UserError
from dgr_lightning.models.weights import outline
from dgr_lightning.pipeline import commands, disk_room
from dgr_lightning.pipeline.disk_room import check_room, refuse_without_room
from dgr_lightning.training.disk import training_disk


def test_it_is_refused_before_anything_is_generated(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(disk_room, "free_bytes", lambda path: 10_000)
    overrides = ["model=micro", f"model.path={base}", f"hydra.run.dir={tmp_path / 'run'}", "trainer=cpu", "probes.every=0"]
    assert entry.run(commands.train, "train", overrides) == BAD_CONFIG
    error = " ".join(capsys.readouterr().err.split())
    assert "9.8 KiB are free on its disk, and training needs" in error and "tuning=lora" in error
    assert not (tmp_path / "cache" / "rewrites").exists() and not (tmp_path / "run").exists()


def config(**trainer) -> Config:
    cfg = Config()
    for name, value in trainer.items():
        setattr(cfg.trainer, name, value)
    return cfg


def refusal(cfg: Config, free: int) -> str:
    with pytest.raises(UserError) as refused:
        refuse_without_room(cfg, training_disk(cfg, 7_616_000_000, 7_616_000_000, 2), free, Path("runs/mine"))
    return str(refused.value)


def test_the_message_has_the_bytes_of_each_kind_and_what_helps():
    assert refusal(config(), 20 * 2**30) == (
        "runs/mine: 20.0 GiB are free on its disk, and training needs 42.6 GiB at once: 28.4 GiB for the last checkpoint, "
        "14.2 GiB for the exported model. Make room there, or write hydra.run.dir= on another disk, or tuning=lora."
    )
    costly = config(checkpoint_every=50, keep_checkpoints=3, keep_optimizer=True)
    assert refusal(costly, 20 * 2**30) == (
        "runs/mine: 20.0 GiB are free on its disk, and training needs 340.5 GiB at once: 255.3 GiB for earlier checkpoints, "
        "85.1 GiB for the last checkpoint. Make room there, or write hydra.run.dir= on another disk, or "
        "trainer.keep_optimizer=false, trainer.keep_checkpoints=1, trainer.checkpoint_every=0, tuning=lora."
    )


def test_only_checkpoints_that_are_sure_to_come_count():
    cfg = config(checkpoint_every=50)
    cfg.data.limit, cfg.sft.epochs, cfg.sft.batch_size = 64, 5, 8
    refuse_without_room(cfg, training_disk(cfg, 7_616_000_000, 7_616_000_000, 2), 43 * 2**30, Path("runs/mine"))
    cfg.sft.epochs = 10
    assert "earlier checkpoints" in refusal(cfg, 43 * 2**30)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_are_counted_from_the_models_config(base, tmp_path, monkeypatch, method):
    cfg = config()
    cfg.tuning.method, cfg.tuning.rank = method, 2
    weights = sum(weight.numel() for weight in outline(base).parameters())
    needed = []
    monkeypatch.setattr(disk_room, "refuse_without_room", lambda cfg, disk, free, run_dir: needed.append((disk, free)))
    monkeypatch.setattr(disk_room, "free_bytes", lambda path: 1000)
    (tmp_path / "checkpoints" / "step-00000003").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000003" / "a.safetensors").write_bytes(b"x" * 500)
    check_room(cfg, base, tmp_path)
    ((disk, free),) = needed
    assert free == 1500, "what an earlier process left is written again in its place"
    if method == "full":
        assert disk.last == 4 * weights and disk.checkpoint == 12 * weights
    else:
        assert 0 < disk.last < 2 * weights
    assert disk.model in (2 * weights, 4 * weights)


def test_a_run_that_has_trained_is_not_asked(base, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_room, "free_bytes", lambda path: 0)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "train.json").write_text("{}")
    check_room(config(), base, tmp_path)
