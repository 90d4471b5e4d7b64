"""The largest row before the first step: it changes nothing, and runs out of memory at once."""

from functools import partial
from pathlib import Path

import pytest
import torch

from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.errors import UserError
from dgr_lightning.training import fit, rehearsal
from dgr_lightning.training.memory_rows import RowsMemory
from dgr_lightning.training.sft import SafetySft
from tests.helpers.rank_trainings import config as rank_config
from tests.helpers.rank_trainings import train_all
from tests.helpers.trainings import assert_same_weights, curve, train


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer_precision": "bf16"},
        pytest.param({"tuning_method": "lora", "tuning_rank": 2, "tuning_dropout": 0.5}, id="dropout"),
    ],
)
def test_weights_losses_and_noise_stay_the_same_to_the_bit(base: Path, tmp_path: Path, monkeypatch, changes: dict) -> None:
    rehearsed = []
    real = SafetySft.rehearse
    monkeypatch.setattr(SafetySft, "rehearse", lambda module, rows: (rehearsed.append(rows), real(module, rows)))
    # A step has several rows of 64 tokens, so the largest runs twice.
    for name, devices in (("plain", ()), ("rehearsed", ("cpu",))):
        monkeypatch.setattr(fit, "_REHEARSING", devices)
        train(base, tmp_path / name, sft_max_steps=4, sft_max_tokens=64, **changes)
    ((row, again),) = rehearsed  # of the second training alone
    assert row is again
    assert curve(tmp_path / "plain") == curve(tmp_path / "rehearsed")
    assert_same_weights(tmp_path / "plain", tmp_path / "rehearsed")


def rehearsed_trainings(trainings: list) -> list:
    """Several trainings in the same ranks, each of which begins with its largest row."""
    fit._REHEARSING = ("cpu",)
    return train_all(trainings)


@pytest.mark.slow
def test_two_ranks_rehearse_together_and_train_as_one(base: Path, tmp_path: Path) -> None:
    train_all([(base, rank_config("single"), tmp_path / "one")])
    trainings = [(base, rank_config(strategy), tmp_path / strategy) for strategy in ("fsdp", "ddp")]
    run_ranks(partial(rehearsed_trainings, trainings), 2, num_threads=1)
    for strategy in ("fsdp", "ddp"):
        assert curve(tmp_path / strategy) == pytest.approx(curve(tmp_path / "one"), rel=1e-5)


def test_a_device_too_small_is_found_before_step_1_with_what_fits(base: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    def fail(module, rows) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(fit, "_REHEARSING", ("cpu",))
    monkeypatch.setattr(SafetySft, "rehearse", fail)
    with pytest.raises(UserError, match=r"more memory than its device has \(CUDA out of memory\)\.\n") as error:
        train(base, tmp_path, trainer_device_memory_gib=0.01)
    assert "\ntry: trainer.recompute_every=" in str(error.value), "not auto, for which the plan without was small enough"
    assert not (tmp_path / "checkpoints").exists(), "before the first step"


def test_states_are_counted_while_the_row_runs(monkeypatch) -> None:
    taken = []

    class Module:
        device = torch.device("cpu")

        def rehearse(self, rows) -> None:
            taken.append((len(rows), states.call_args))

    class States:
        call_args = 0

        def __call__(self, size, **options):
            self.call_args = size
            return object()

    states = States()
    monkeypatch.setattr(rehearsal.torch, "empty", states)
    rehearsal.Rehearsal({}, 2, 123).on_train_start(None, Module())
    assert taken == [(2, 123)]


def test_auto_recomputes_where_stated_memory_is_short(base: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    plans: list[RowsMemory] = []
    real = RowsMemory.__init__
    monkeypatch.setattr(RowsMemory, "__init__", lambda self, *arguments: (real(self, *arguments), plans.append(self))[0])
    train(base, tmp_path / "plenty", sft_max_steps=1, trainer_device_memory_gib=1.0)
    assert plans[0].recompute_every == 0 and "trainer.recompute_every" not in capfd.readouterr().out
    assert plans[0].fit is not None
    short = 0.98 * plans[0].fit.plan.total / 2**30
    train(base, tmp_path / "short", sft_max_steps=1, trainer_device_memory_gib=short)
    assert plans[1].recompute_every > 0
    assert f"trainer.recompute_every={plans[1].recompute_every}" in capfd.readouterr().out
    assert_same_weights(tmp_path / "plenty", tmp_path / "short")
    with pytest.raises(UserError, match="The training needs"):
        train(base, tmp_path / "none", sft_max_steps=1, trainer_device_memory_gib=1e-5)
    assert not (tmp_path / "none" / "metrics.csv").exists()
