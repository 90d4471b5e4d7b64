"""Ctrl-C ends a run whatever it is doing: one message, exit code 130, no process left; and the same command goes on exactly."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.full_disks import only_message
from tests.helpers.runs import GREEDY, ROOT, SMALL, environment, last_of_each, rank_processes, run

TINY = last_of_each(*SMALL, *GREEDY, "data.limit=8", "evaluation.limit=2", "evaluation.tasks=[micro-short]", "probes.tasks=[]")
TINY += ["sft.batch_size=4", "sft.max_tokens=64", "sft.epochs=50", "shift.prompts=0", "trainer.checkpoint_every=5"]
RANKS = ["trainer.strategy=fsdp", "trainer.devices=2"]

pytestmark = pytest.mark.slow


def interrupt_when(condition, cache: Path, *arguments: str, number: signal.Signals, parent_only: bool = False):
    """Starts train.py, sends it a signal as soon as `condition()` holds, and returns its exit code and standard error.

    A terminal sends the signal to all processes of the run; `kill` sends it to the first alone.
    """
    heeds = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv.pop(0); "
    heeds += (
        f"sys.path.insert(0, {str(ROOT)!r}); runpy.run_path(sys.argv[0], run_name='__main__')"  # a background shell ignores it
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heeds, str(ROOT / "train.py"), *arguments],
        env=environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 600
        while not condition():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (os.kill if parent_only else os.killpg)(process.pid, number)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, error


def has_checkpoint(run_dir: Path):
    return lambda: any(run_dir.glob("checkpoints/step-????????"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder / "run", folder / "cache", *TINY)
    return folder


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "kill"])
def test_a_stopped_training_goes_on_exactly(number, code, tmp_path, cache, undisturbed):
    shutil.copytree(undisturbed / "cache", cache)
    place = tmp_path / "run"
    ended, error = interrupt_when(has_checkpoint(place), cache, f"hydra.run.dir={place}", *TINY, number=number)
    assert ended == code, error
    assert only_message(error) == "stopped: everything generated and trained is kept: the same command continues from there."
    assert not (place / "model").exists(), "stopped too late to show anything"
    assert "resumed from step" in run(place, cache, *TINY)
    for name in ("model/model.safetensors", "refined.jsonl", "evaluation/tuned/micro-short.jsonl"):
        assert (place / name).read_bytes() == (undisturbed / "run" / name).read_bytes()


@pytest.mark.parametrize("parent_only", [False, True], ids=["all processes", "the first alone"])
def test_ranks_are_stopped_and_none_is_left(parent_only, tmp_path, cache, undisturbed):
    shutil.copytree(undisturbed / "cache", cache)
    place = tmp_path / "run"
    overrides = [f"hydra.run.dir={place}", *TINY, *RANKS]
    ended, error = interrupt_when(has_checkpoint(place), cache, *overrides, number=signal.SIGINT, parent_only=parent_only)
    assert ended == 130, error
    assert only_message(error).startswith("stopped: ")
    assert rank_processes(place) == []


def test_a_sweep_stops_as_a_whole(tmp_path, cache, undisturbed):
    shutil.copytree(undisturbed / "cache", cache)
    swept = tmp_path / "swept"

    def trains() -> bool:
        return any(swept.glob("*/*/checkpoints/step-????????"))

    overrides = ["-m", f"hydra.sweep.dir={swept}", "seed=0,1", *TINY]
    ended, error = interrupt_when(trains, cache, *overrides, number=signal.SIGINT)
    assert ended == 130, error
    assert only_message(error).startswith("stopped: ")
    assert len(list(swept.glob("*/*"))) == 1, "the second point was begun"
