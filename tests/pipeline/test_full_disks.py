"""A disk that fills up ends a run in one message; with room again, the same command ends as if nothing had happened."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from tests.helpers.full_disks import SmallDisk, files_no_larger_than, only_message
from tests.helpers.runs import GREEDY, ROOT, SMALL, command, environment, last_of_each, run, stored_lines

TINY = last_of_each(*SMALL, *GREEDY, "data.limit=8", "evaluation.limit=2", "evaluation.tasks=[micro-short]", "sft.max_steps=2")
TINY += ["sft.max_tokens=64", "probes.tasks=[]", "shift.prompts=0", "trainer.checkpoint_every=0", "trainer.keep_optimizer=true"]

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.remove()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nothing happened to, and its cache."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder / "run", folder / "cache", *TINY)
    return folder


def start(run_dir: Path, cache: Path, *overrides: str, script: str = "train.py") -> subprocess.CompletedProcess[str]:
    unchecked = without_check(command(run_dir, *overrides, script=script))
    return subprocess.run(unchecked, env=environment(cache), capture_output=True, text=True, timeout=900)


def without_check(command: list[str]) -> list[str]:
    """A command whose disk fills up after it was found large enough, as others fill it."""
    return [command[0], str(ROOT / "tests" / "helpers" / "filled_later.py"), *command[1:]]


def fail(run_dir: Path, cache: Path, *overrides: str, script: str = "train.py") -> str:
    """Runs a script that ends with exit code 1, and returns its only message."""
    done = start(run_dir, cache, *overrides, script=script)
    assert done.returncode == 1, done.stdout + done.stderr
    message = only_message(done.stderr)
    assert message.startswith("the run failed: ") and message.endswith("the same command continues from it.")
    assert not list(run_dir.rglob("*.partial")), "it keeps the room that is missing"
    return message


def results(run_dir: Path) -> dict:
    """Everything that a run left, without the time that it took."""
    files = ["refined.jsonl", "model/model.safetensors", "stages/verdicts.jsonl", "dataset/data/train-00000-of-00001.parquet"]
    files += [f"evaluation/{side}/micro-short.jsonl" for side in ("base", "tuned")]
    left: dict = {name: (run_dir / name).read_bytes() for name in files}
    curves = pandas.read_csv(run_dir / "metrics.csv")
    left["curves"] = curves[["trainer/global_step", "train/loss", "train/lr", "train/grad_norm"]].to_csv()
    summary = json.loads((run_dir / "summary.json").read_text())
    for key in ("tokens_per_second", "peak_memory_bytes", "resumed_from_step", "probe_seconds", "probe_share"):
        summary["training"].pop(key)
    left |= {f"summary {key}": value for key, value in summary.items() if key not in ("wall_seconds", "shift")}
    return left


def kib_without(run_dir: Path, *missing: str) -> int:
    """Room that a run takes on a tmpfs, in KiB, without some of its files and folders."""
    files = [path for path in run_dir.rglob("*") if path.is_file() and not str(path.relative_to(run_dir)).startswith(missing)]
    return sum(4 * -(-path.stat().st_size // 4096) for path in files)


def test_full_in_every_stage_a_run_ends_as_an_undisturbed_one(disk, tmp_path, cache, undisturbed):
    """The disk of the run grows, and is full again one stage later."""
    place = disk.path / "run"
    # What is written when the model is there.
    later = ("evaluation/tuned", "evaluation/stored", "stages/evaluate_tuned.json", "report.html", "summary.json")
    later = (*later, "outputs.html", "evaluation/budget.json")
    later = (*later, "stages/measured.json")
    for kib, what in (
        (4, ".run.json"),
        (16, "stages/"),
        (1024, "checkpoints/step-00000002"),
        (kib_without(undisturbed / "run", "model/", *later) + 200, "model"),
        (kib_without(undisturbed / "run", *later) + 8, "evaluation/"),  # 8: a file and its successor lie there at once
    ):
        disk.resize(kib)
        message = fail(place, cache, *TINY)
        assert f"{place}/{what}" in message and "no space is left on its disk (" in message
    disk.resize(64 * 1024)
    run(place, cache, *TINY)
    assert results(place) == results(undisturbed / "run")


def test_a_full_cache_ends_a_refinement_and_keeps_what_is_generated(disk, tmp_path, undisturbed):
    stored = disk.path / "cache"
    overrides = [override for override in TINY if not override.startswith(("evaluation", "trainer", "sft", "probes"))]
    disk.resize(100)
    assert f"{stored}/rewrites/" in fail(tmp_path / "run", stored, *overrides, script="refine.py")
    kept = stored_lines(stored)
    disk.resize(16 * 1024)
    run(tmp_path / "run", stored, *overrides, script="refine.py")
    assert kept and set(kept) < set(stored_lines(stored))
    assert sorted(stored_lines(stored)) == sorted(stored_lines(undisturbed / "cache"))
    assert (tmp_path / "run" / "refined.jsonl").read_bytes() == (undisturbed / "run" / "refined.jsonl").read_bytes()


def test_where_no_file_may_be_large_a_checkpoint_ends_a_run(tmp_path, cache, undisturbed):
    shutil.copytree(undisturbed / "cache", cache)
    with files_no_larger_than(200 * 1024):
        message = fail(tmp_path / "run", cache, *TINY)
    assert f"{tmp_path}/run/checkpoints/step-00000002 could not be written: no file may become larger than 200 KiB" in message
    run(tmp_path / "run", cache, *TINY)
    assert results(tmp_path / "run") == results(undisturbed / "run")


def test_ranks_say_it_once_also_where_their_temporary_files_lie_on_the_full_disk(disk, cache, undisturbed, monkeypatch):
    shutil.copytree(undisturbed / "cache", cache)
    disk.resize(1024)
    monkeypatch.setenv("TMPDIR", str(disk.path))
    message = fail(disk.path / "run", cache, *TINY, "trainer.strategy=fsdp", "trainer.devices=2")
    assert f"{disk.path}/run/checkpoints/step-00000002 could not be written: no space is left" in message


def test_a_sweep_goes_on_after_a_point_without_room_and_the_same_command_makes_up_for_it(disk, cache, undisturbed):
    """The checkpoint of a full tuning takes 8 MB, that of an adapter next to nothing."""
    shutil.copytree(undisturbed / "cache", cache)
    swept = [
        sys.executable,
        str(ROOT / "train.py"),
        "-m",
        f"hydra.sweep.dir={disk.path}/swept",
        *TINY,
        "tuning.method=full,lora",
    ]
    disk.resize(6000)
    done = subprocess.run(without_check(swept), env=environment(cache), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "sweep: 1 of 2 points failed; the others are done.\n  point 1 (" in done.stderr
    assert done.stderr.count("the same command continues") == 1, done.stderr
    (finished,) = disk.path.glob("swept/*/*/summary.json")
    disk.resize(64 * 1024)
    again = subprocess.run(swept, env=environment(cache), capture_output=True, text=True)
    assert again.returncode == 0 and f"{finished.parent} is done" in again.stdout.replace("\n", "")
    (full,) = {path.parent for path in disk.path.glob("swept/*/*/summary.json")} - {finished.parent}
    assert results(full) == results(undisturbed / "run")
