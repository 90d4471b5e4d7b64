"""Several machines, as two agents of torchrun with one rendezvous on this one."""

import socket
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from runs import ROOT, SMALL, environment, run, summary_of


def torchrun(run_dir: Path, cache: Path, *overrides: str) -> list[subprocess.CompletedProcess[str]]:
    """Starts train.py under two agents, a process each, and waits for both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--local-addr=127.0.0.1"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", str(ROOT / "train.py")]
    command += [f"hydra.run.dir={run_dir}", "trainer=fsdp-multinode", "trainer.accelerator=cpu", "trainer.shard_size=null"]
    agents = [
        subprocess.Popen(
            [*command, *overrides], env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [agent.communicate(timeout=900) for agent in agents]
    return [
        subprocess.CompletedProcess(command, agent.returncode, *output) for agent, output in zip(agents, outputs, strict=True)
    ]


@pytest.mark.slow
def test_two_machines_leave_what_one_process_leaves(tmp_path: Path, cache: Path) -> None:
    overrides = [*SMALL, "sft.epochs=6", "refine.temperature=0", "engine.precision=fp32"]
    first, second = torchrun(tmp_path / "two", cache, *overrides)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    told = [output for output in (first.stdout, second.stdout) if output.strip()]
    assert len(told) == 1 and "Training" in told[0], "one of them speaks for all"
    run(tmp_path / "one", cache, *overrides)
    one, two = summary_of(tmp_path / "one"), summary_of(tmp_path / "two")
    assert two["config_hash"] == one["config_hash"]
    assert (tmp_path / "two" / "refined.jsonl").read_bytes() == (tmp_path / "one" / "refined.jsonl").read_bytes()
    losses = [pandas.read_csv(tmp_path / name / "metrics.csv")["train/loss"].tolist() for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_bad_input_ends_both_machines_at_once_with_one_message(tmp_path: Path, cache: Path) -> None:
    both = torchrun(tmp_path / "run", cache, *SMALL, "trainer.nodes=3")
    assert all(agent.returncode != 0 for agent in both)
    messages = [line for agent in both for line in agent.stderr.splitlines() if line.startswith("error:")]
    assert messages == ["error: trainer.nodes=3: torchrun started 2; leave it to torchrun."]
