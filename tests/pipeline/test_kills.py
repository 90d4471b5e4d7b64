"""A refinement that is killed again and again, at random moments, and ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from dgr_lightning.files import read_jsonl
from tests.helpers.runs import command, environment, run, stored_lines

NUM_KILLS = int(os.environ.get("DGR_KILLS", "2"))
NUM_EXAMPLES = 20 * NUM_KILLS
REFINE = [f"data.limit={NUM_EXAMPLES}", "engine.name=transformers", "engine.batch_size=4"]


def start_and_kill(run_dir, cache, num_more: int, delay: float, *overrides) -> None:
    """Lets refine.py store so many completions, and kills it a moment later."""
    wanted = len(stored_lines(cache)) + num_more
    process = subprocess.Popen(
        command(run_dir, *overrides, script="refine.py"),
        env=environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 900
    while len(stored_lines(cache)) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["greedy, fp32", "sampled, bf16"])
def test_killed_again_and_again_a_refinement_loses_nothing_and_repeats_nothing(tmp_path, cache, how):
    greedy = how == "greedy, fp32"
    overrides = [*REFINE, *(["engine.precision=fp32", "refine.temperature=0"] if greedy else ["refine.tries=2"])]
    rng, killed = random.Random(how), tmp_path / "killed"
    kept: list[str] = []
    counts = []
    for number in range(NUM_KILLS):
        # The first before anything is stored. Each has 20 examples, so however fast the machine, the last is not too late.
        start_and_kill(killed, cache, rng.randint(1, 12) if number else 0, rng.random() * 0.1, *overrides)
        now = stored_lines(cache)
        assert set(kept) <= set(now), "a stored line was lost or changed"
        kept = now
        counts.append(len(now))
    assert not (killed / "summary.json").exists(), "killed too late to show anything"
    assert counts[-1] > 0 and len(set(counts)) > 1, f"never killed in mid-work: {counts}"
    run(killed, cache, *overrides, script="refine.py")

    after = stored_lines(cache)
    assert set(kept) <= set(after)
    # A store refuses a key that it has, so a completion that was on disk and generated again would have failed the run.
    keys = [json.loads(line)["key"] for line in after]
    assert len(keys) == len(set(keys))
    rows = list(read_jsonl(killed / "refined.jsonl"))
    assert len(rows) == len({row["id"] for row in rows}) == NUM_EXAMPLES
    assert {key.rsplit("/", 3)[0] for key in keys} == {row["id"] for row in rows}
    if greedy:
        shutil.rmtree(cache / "rewrites")
        run(tmp_path / "undisturbed", cache, *overrides, script="refine.py")
        assert (killed / "refined.jsonl").read_bytes() == (tmp_path / "undisturbed" / "refined.jsonl").read_bytes()
        assert sorted(stored_lines(cache)) == sorted(after)
