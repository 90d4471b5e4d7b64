"""How a command line ends: runs, sweeps, failures and interrupts, each with its exit code."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgr_lightning.cli.failures import BAD_CONFIG, FAILED
from dgr_lightning.errors import UserError
from dgr_lightning.writing import CannotWrite
from tests.helpers.full_disks import only_message
from tests.helpers.runs import ROOT


def test_nothing_is_written_before_the_stages(run_script, tmp_path):
    run_script("hydra.run.dir=elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_gives_each_point_its_config_and_one_root(run_script):
    code, seen = run_script("-m", "refine=vanilla,dgr", "seed=1,2", "hydra.sweep.dir=swept")
    assert code == 0
    assert [(cfg.refine.name, cfg.seed) for cfg, _ in seen] == [("vanilla", 1), ("vanilla", 2), ("dgr", 1), ("dgr", 2)]
    assert {(place.root, place.exact) for _, place in seen} == {(Path("swept"), None)}


def test_in_a_sweep_the_points_beside_a_bad_one_run(run_script, capsys):
    code, seen = run_script("-m", "seed=1,-1,2", "sft.lr=1e-3,fast")
    assert code == BAD_CONFIG
    assert [cfg.seed for cfg, _ in seen] == [1, 2]
    error = capsys.readouterr().err
    assert "seed=-1" in error and "sft.lr=fast" in error and "4 of 6 points failed" in error


def test_in_a_sweep_a_failed_point_lets_the_others_run_and_ends_with_1(run_script, capsys):
    def fail_on_2(cfg):
        if cfg.seed == 2:
            raise RuntimeError("out of memory")

    code, seen = run_script("-m", "seed=1,2,3,-4", main=fail_on_2)
    assert code == FAILED
    assert [cfg.seed for cfg, _ in seen] == [1, 2, 3]
    assert "out of memory" in capsys.readouterr().err


def test_a_failed_run_shows_its_traceback_and_ends_with_1(run_script, capsys):
    def fail(cfg):
        raise RuntimeError("the disk is full")

    code, _ = run_script(main=fail)
    error = capsys.readouterr().err
    assert code == FAILED
    assert "Traceback" in error and "the run failed: RuntimeError: the disk is full" in error
    assert "hydra" not in error


class Odd(BaseException):
    """Such as torch's CheckpointException, or pyo3's PanicException."""


def test_a_failure_that_is_no_exception_ends_like_one_and_the_sweep_goes_on(run_script, capsys):
    def fail(cfg):
        if cfg.seed == 1:
            raise Odd("Traceback (most recent call last): (RANK 0)\nValueError: odd")

    code, _ = run_script("seed=1", main=fail)
    assert code == FAILED
    assert "the run failed: ValueError: odd (traceback above)" in capsys.readouterr().err
    code, seen = run_script("-m", "seed=1,2", main=fail)
    assert code == FAILED and [cfg.seed for cfg, _ in seen] == [1, 2]
    assert "1 of 2 points failed; the others are done.\n  point 1 (seed=1): ValueError: odd" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_a_full_disk_or_memory_is_one_message_without_a_traceback(error, run_script, capsys):
    def fail(cfg):
        raise error

    code, _ = run_script(main=fail)
    message = only_message(capsys.readouterr().err)
    assert code == FAILED and message.startswith("the run failed: ") and "the same command continues" in message


def test_points_of_a_sweep_are_counted_where_the_cache_has_no_room_for_their_outcomes(run_script, capsys, monkeypatch):
    def no_room(path, value):
        raise CannotWrite(f"{path} could not be written")

    monkeypatch.setattr("dgr_lightning.cli.sweep_points.write_json", no_room)

    def fail_on_1(cfg):
        if cfg.seed == 1:
            raise RuntimeError("out of luck")

    code, _ = run_script("-m", "seed=1,2,-3", main=fail_on_1)
    assert code == FAILED
    assert "2 of 3 points failed; the others are done.\n  point 1 (seed=1): RuntimeError" in capsys.readouterr().err


def test_a_user_error_of_a_stage_ends_with_2(run_script, capsys):
    def refuse(cfg):
        raise UserError("row 3 has no answer")

    code, _ = run_script(main=refuse)
    assert code == BAD_CONFIG
    assert capsys.readouterr().err.strip() == "error: row 3 has no answer"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "kill"])
@pytest.mark.parametrize("arguments", [[], ["-m", "seed=1,2"]], ids=["run", "sweep"])
def test_an_interrupt_ends_cleanly(arguments, number, code, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell ignores it
        f"sys.path.insert(0, {str(ROOT)!r})\nfrom dgr_lightning.cli import entry\n"
        "def main(cfg, place):\n    print('started', flush=True)\n    time.sleep(60)\n"
        "sys.exit(entry.run(main, 'train', sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "started" not in process.stdout.readline():
        assert process.poll() is None
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert error.startswith("stopped: ") and "Traceback" not in error


def test_a_sweep_says_which_points_failed_and_why(run_script, capsys):
    def fail(cfg):
        if cfg.seed == 2:
            raise ValueError("no room")  # of a job, and no complaint about the command line

    code, _ = run_script("-m", "seed=1,2", main=fail)
    assert code == FAILED
    assert "1 of 2 points failed; the others are done.\n  point 2 (seed=2): ValueError: no room" in capsys.readouterr().err


LAUNCHED_ELSEWHERE = """
import sys
from dgr_lightning.cli.entry import entry
from dgr_lightning.errors import UserError

@entry("train")
def main(cfg, place):
    if cfg.seed == 2:
        raise UserError("row 3 has no answer")
    return float(cfg.seed)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_points_that_a_launcher_runs_in_other_processes_are_counted(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    script = tmp_path / "script.py"
    script.write_text(LAUNCHED_ELSEWHERE)
    launched = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2,3"]
    done = subprocess.run(
        [sys.executable, str(script), *launched],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == BAD_CONFIG, done.stderr
    assert "1 of 3 points failed; the others are done.\n  point 2 (seed=2): row 3 has no answer" in done.stderr
