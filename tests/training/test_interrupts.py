"""Ctrl-C and SIGTERM in training end as they do elsewhere, and nothing of the training is lost."""

import os
import signal
from pathlib import Path

import pytest

from dgr_lightning.processes import Terminated, sigterm_raises
from tests.helpers.trainings import assert_same_weights, curve, exported, train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_interrupt_is_raised_and_a_resume_is_exact(number, base: Path, tmp_path: Path, monkeypatch) -> None:
    """Lightning would make a SystemExit(1) of the first, ignore all others, and put SIGTERM off to the end of the step."""

    def stop(model, step: int) -> dict[str, float]:
        if step == 8:
            os.kill(os.getpid(), number)
            raise AssertionError("goes on")
        return {}

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    with sigterm_raises():
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) as raised:
            train(base, tmp_path / "stopped", stop)
        assert signal.getsignal(signal.SIGTERM) is before
    assert isinstance(raised.value, Terminated) == (number == signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(base, tmp_path / "undisturbed")
    assert train(base, tmp_path / "stopped").resumed_from_step == 6
    assert_same_weights(tmp_path / "stopped", tmp_path / "undisturbed")
    assert curve(tmp_path / "stopped") == curve(tmp_path / "undisturbed")
    assert exported(tmp_path / "stopped").keys() == exported(tmp_path / "undisturbed").keys()


def test_a_second_interrupt_does_not_wait_for_the_checkpoint(base: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from dgr_lightning.training.checkpoints import Checkpoints

    def interrupt(model, step: int) -> dict[str, float]:
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    def interrupted_again(self, seconds: float | None = None) -> None:
        if seconds is not None:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("goes on")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(Checkpoints, "is_pending", True)
    monkeypatch.setattr(Checkpoints, "wait", interrupted_again)
    with pytest.raises(KeyboardInterrupt):
        train(base, tmp_path, interrupt)
    assert "Ctrl-C again stops at once" in capsys.readouterr().out


def test_a_checkpoint_that_fails_as_well_does_not_hide_why_the_training_ended(base: Path, tmp_path: Path, monkeypatch) -> None:
    from dgr_lightning.training.checkpoints import Checkpoints

    def fail(model, step: int) -> dict[str, float]:
        raise ZeroDivisionError

    def no_room(self, seconds: float | None = None) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Checkpoints, "wait", no_room)
    with pytest.raises(ZeroDivisionError):
        train(base, tmp_path, fail)
