"""Whole runs in processes of their own, for tests: started through the real entry points, killed, counted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A small run of the real pipeline on the miniature; greedy in fp32 makes the refined set independent of how batches are cut.
SMALL = ["data.limit=48", "evaluation.limit=8", "probes.size=8", "probes.every=0", "trainer.precision=fp32"]
GREEDY = ["engine.precision=fp32", "refine.temperature=0", "engine.batch_size=4"]


def last_of_each(*overrides: str) -> list[str]:
    """Overrides in which a later one takes the place of an earlier one of its key, which a command line refuses."""
    return list({override.partition("=")[0]: override for override in overrides}.values())


def command(run_dir: Path, *overrides: str, script: str = "train.py") -> list[str]:
    return [sys.executable, str(ROOT / script), *last_of_each(f"hydra.run.dir={run_dir}", *overrides)]


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"DGR_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(run_dir: Path, cache: Path, *overrides: str, script: str = "train.py") -> str:
    """Runs an entry point to its end and returns what it printed."""
    done = subprocess.run(
        command(run_dir, *overrides, script=script), env=environment(cache), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill_when(condition, run_dir: Path, cache: Path, *overrides: str) -> None:
    """Starts train.py and kills it with SIGKILL as soon as `condition()` holds."""
    process = subprocess.Popen(
        command(run_dir, *overrides), env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 900
        while not condition():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def rank_processes(run_dir: Path, seconds: float = 5.0) -> list[int]:
    """Processes that still have the run directory's files open, `seconds` after all of them should have died."""
    deadline = time.monotonic() + seconds
    while True:
        alive = []
        for folder in Path("/proc").glob("[0-9]*/fd"):
            try:
                opened = [str(link.readlink()) for link in folder.iterdir()]
            except OSError:
                continue
            alive += [int(folder.parent.name)] if any(name.startswith(f"{run_dir}/") for name in opened) else []
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.1)


def stored_lines(cache: Path) -> list[str]:
    """Every whole line of every store of rewrites, without headers."""
    files = sorted((cache / "rewrites").glob("*/shard-*.jsonl"))
    lines = [line for file in files for line in file.read_bytes().decode().split("\n")[:-1]]
    return [line for line in lines if line.startswith('{"key"')]


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())
