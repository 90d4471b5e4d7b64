"""Several machines, as two agents of torchrun with one rendezvous on this one."""

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas
import pytest

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed import multi_node, torchrun
from dgr_lightning.distributed.ranks import Ranks, init_group
from tests.helpers.runs import ROOT, SMALL, environment, run, summary_of


def agents(
    environment: dict[str, str], *command: str, second: dict[str, str] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Starts a script under two agents, a process each, and waits for both; the second node's environment has more in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--local-addr=127.0.0.1"]
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "--monitor-interval=0.1"]
    started = [
        subprocess.Popen(
            [*torchrun, *command], env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for more in ({}, second or {})
    ]
    outputs = [agent.communicate(timeout=900) for agent in started]
    return [
        subprocess.CompletedProcess(command, agent.returncode, *output) for agent, output in zip(started, outputs, strict=True)
    ]


def train(run_dir: Path, cache: Path, *overrides: str, **second: str) -> list[subprocess.CompletedProcess[str]]:
    options = [f"hydra.run.dir={run_dir}", "trainer=fsdp-multinode", "trainer.accelerator=cpu", "trainer.shard_size=null"]
    return agents(environment(cache), str(ROOT / "train.py"), *options, *overrides, second=second)


@pytest.mark.slow
def test_two_machines_leave_what_one_process_leaves(tmp_path: Path, cache: Path) -> None:
    overrides = [*SMALL, "sft.epochs=6", "refine.temperature=0", "engine.precision=fp32"]
    first, second = train(tmp_path / "two", cache, *overrides)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    told = [output for output in (first.stdout, second.stdout) if output.strip()]
    assert len(told) == 1 and "Training" in told[0], "one of them speaks for all"
    run(tmp_path / "one", cache, *overrides)
    one, two = summary_of(tmp_path / "one"), summary_of(tmp_path / "two")
    assert two["config_hash"] == one["config_hash"]
    assert (tmp_path / "two" / "refined.jsonl").read_bytes() == (tmp_path / "one" / "refined.jsonl").read_bytes()
    losses = [pandas.read_csv(tmp_path / name / "metrics.csv")["train/loss"].tolist() for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


LOCKS_OF_ONE_NODE = "import fcntl\nfcntl.flock = lambda file, operation: None\n"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cache", "locks"])
def test_folders_or_locks_that_are_not_shared_end_both_machines_before_anything_is_generated(
    tmp_path: Path, cache: Path, fault: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOCKS_OF_ONE_NODE)
    own = {"cache": {"DGR_CACHE": str(tmp_path / "own")}, "locks": {"PYTHONPATH": str(tmp_path)}}[fault]
    both = train(tmp_path / "run", cache, *SMALL, **own)
    said = [line for agent in both for line in agent.stderr.splitlines() if line.startswith("error:")]
    named = {"cache": "$DGR_CACHE: node 1 does not see", "locks": "the run directory: node 1 gets a file lock"}[fault]
    assert len(said) == 1 and said[0].startswith(f"error: {named}")
    assert all(" exitcode  : 2 " in agent.stderr for agent in both)
    assert not (tmp_path / "run").exists() and not (cache / "rewrites").exists()


def gather_ranks(stage: int, folder: Path) -> list[int]:
    """All ranks join a group and gather their numbers. In the second stage the second one is killed, once."""
    ranks = Ranks.here()
    init_group(TrainerConfig(accelerator="cpu", strategy="fsdp", devices=1), ranks)
    if stage == 2 and ranks.rank == 1 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ranks.all_gather(ranks.rank)


def drive_or_serve(folder: Path) -> None:
    """What the command line does in a process that torchrun started."""
    if not torchrun.is_first():
        sys.exit(multi_node.serve())
    code = 1
    try:
        for stage in (1, 2, 3):
            print("stage", stage, multi_node.run_on_all_ranks(partial(gather_ranks, stage, folder)), flush=True)
        code = 0
    finally:
        multi_node.stop_workers(code)


@pytest.mark.slow
def test_stages_and_attempts_are_kept_apart(tmp_path: Path) -> None:
    """Three stages under one torchrun; in the second a rank is killed, and torchrun starts everything again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.distributed import test_multi_node\n"
        "if __name__ == '__main__':\n    test_multi_node.drive_or_serve(Path(sys.argv[1]))\n"
    )
    paths = {"PYTHONPATH": str(ROOT)}
    both = agents(os.environ | paths, "--max-restarts=2", str(script), str(tmp_path))
    assert [agent.returncode for agent in both] == [0, 0], both[0].stderr + both[1].stderr
    told = "".join(agent.stdout for agent in both).splitlines()
    assert told == [f"stage {stage} [0, 1]" for stage in (1, 1, 2, 3)]
